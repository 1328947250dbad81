"""The old server's sessions, where they lie in the table that connect-pg-simple made."""

from __future__ import annotations

from shared.database import sqlstate
from shared.database.pool import Database
from shared.database.session import Row
from shared.database.statement import Statement
from shared.errors import StoreFault, StoreRefused
from shared.model.users import User
from shared.store.contract import ExpressSessions
from shared.store.postgres import statements
from shared.store.postgres.rows import read_user

# There was no old server, or SQL cannot read a `sess` as JSON.parse can: \u0000, and deep nesting.
_NO_SUCH_SESSION = (
    sqlstate.UNDEFINED_TABLE,
    sqlstate.CLASS_DATA_EXCEPTION,
    sqlstate.STATEMENT_TOO_COMPLEX,
)


class PostgresExpressSessions(ExpressSessions):
    """The table `session`, which need not be there."""

    def __init__(self, database: Database) -> None:
        """Ask nothing yet."""
        self._database = database

    def user(self, sid: str, *, exchanged: str) -> User | None:
        """Join the session with its user; a `userId` that is no UUID is nobody's."""
        rows = self._execute(statements.EXPRESS_USER, express_sid=sid, sid=exchanged)
        return read_user(rows[0]) if rows else None

    def delete(self, sid: str) -> None:
        """Delete the row; one that a trigger keeps goes on being a session there and here."""
        is_deleted = self._execute(statements.DELETE_EXPRESS, express_sid=sid)
        if not is_deleted and self._execute(statements.HAS_EXPRESS, express_sid=sid):
            raise StoreRefused(
                cause="a row of session was not deleted: a trigger or rule of another's keeps it",
                table="session",
            )

    def _execute(self, statement: Statement, /, **sids: str) -> list[Row]:
        try:
            return self._database.execute(statement, **sids)
        except StoreRefused as error:
            # A table without our columns is another application's, and no session lies in it.
            if error.facts.get("sqlstate") == sqlstate.UNDEFINED_COLUMN:
                return []
            raise
        except StoreFault as error:
            if error.sqlstate.startswith(_NO_SUCH_SESSION):
                return []
            raise StoreRefused(
                cause=f"the table session is not connect-pg-simple's: {error}"
            ) from error
