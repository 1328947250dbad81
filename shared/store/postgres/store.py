"""Users in Postgres, as requests need them: a method is one statement, and one round trip."""

from __future__ import annotations

import functools
import json
import time
import uuid
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from shared.database import sqlstate
from shared.database.pool import Database
from shared.database.session import Row
from shared.database.settings import DatabaseSettings
from shared.database.statement import Statement, Value
from shared.errors import (
    AccountInUse,
    EmailTaken,
    InvalidCredentials,
    StoreFault,
    StoreUnavailable,
    TooManyAttempts,
)
from shared.model.clients import Client
from shared.model.emails import email_key
from shared.model.mails import PER_DAY, PER_HOUR
from shared.model.sessions import Session
from shared.model.throttling import (
    KNOWN_SECONDS,
    Keys,
    Pseudonyms,
    id_token_key,
    mail_keys,
    sign_up_key,
    success_key,
)
from shared.model.users import UUID, ExternalIdentity, IdToken, User, Verification
from shared.store.attempt_outcomes import CLIENT, succeeded, too_many, used_up
from shared.store.contract import Account, Attempt, Credentials, ExternalMatch, Reservation, Store
from shared.store.postgres import statements
from shared.store.postgres.express_sessions import PostgresExpressSessions
from shared.store.postgres.preparation import prepare
from shared.store.postgres.rows import (
    USER_LENGTH,
    changed_by_others,
    kept,
    kept_out,
    only,
    parse_json,
    read_user,
)
from shared.store.postgres.status import PostgresStatus
from shared.store.settings import StoreSettings

if TYPE_CHECKING:
    from shared.database.replica import Replica
    from shared.model.statistics import Statistics, Window
    from shared.store.postgres.mail import PostgresMail
    from shared.store.postgres.upkeep import Upkeep

_TAKEN = (sqlstate.UNIQUE_VIOLATION, sqlstate.EXCLUSION_VIOLATION)
_MAX_OWED = 1000
"""Attempts that are remembered to be given back."""


class PostgresStore(Store):
    """Users in a table."""

    def __init__(
        self,
        settings: StoreSettings,
        database: DatabaseSettings,
        secrets: Sequence[str],
        *,
        sends_mail: bool = False,
    ) -> None:
        """Open nothing yet. Of the secrets the first names addresses and networks in tables.

        `sends_mail` says whether somebody delivers what is put into the outbox.
        """
        if database.url is None:
            raise ValueError("the Postgres store needs a database's URL")
        prepared = functools.partial(prepare, apply=database.auto_migrate)
        self.database = Database(database.url, database, prepare=prepared)
        self.replica: Replica | None = None
        if database.read_url is not None:
            from shared.database.replica import Replica  # Where there is one.

            self.replica = Replica(database.read_url, database, self.database)
        self.database_status: PostgresStatus = PostgresStatus(self.database)
        self.express_sessions = PostgresExpressSessions(self.database)
        self.sends_mail = sends_mail
        self.limits = settings.limits
        self._audit_seconds = settings.audit_days * 24 * 60 * 60
        self.pseudonyms = Pseudonyms(secrets)
        self._owed: deque[Attempt] = deque(maxlen=_MAX_OWED)

    @functools.cached_property
    def _upkeep(self) -> Upkeep:
        from shared.store.postgres.upkeep import Upkeep  # Not before the first answer.

        return Upkeep(self.database, self._audit_seconds)

    @functools.cached_property
    def mail(self) -> PostgresMail:
        """What is done for whoever reads a user's mailbox, and the outbox."""
        from shared.store.postgres.mail import PostgresMail

        return PostgresMail(self)

    def reserve_sign_up(
        self, client: Client, identities: Sequence[ExternalIdentity] = ()
    ) -> Reservation:
        """Count under the network's key for sign-ups."""
        is_allowed, seconds = only(
            self.database.execute(
                statements.RESERVE_SIGN_UP,
                key=sign_up_key(self.pseudonyms.of(client.network)),
                limit=self.limits.sign_up,
                lockout_seconds=self.limits.lockout_seconds,
                client=client.coarse,
            )
        )
        if not is_allowed:
            raise TooManyAttempts(seconds, event="signup_throttled")
        return Reservation()

    def create_user(
        self,
        user: User,
        password_hash: str | None,
        identities: Sequence[ExternalIdentity] = (),
        *,
        client: Client | None = None,
        reservation: Reservation | None = None,
        verification: Verification = "from_before",
        locale: str | None = None,
    ) -> User:
        """Insert, and let the database decide."""
        columns: dict[str, Value] = {"email": user.email, "name": user.name}
        columns["provider"] = user.provider
        try:
            with self.explained(columns | {"password": password_hash}):
                is_taken, _, *row = only(
                    self.database.execute(
                        statements.CREATE,
                        identities=_pairs(identities),
                        user_id=user.id,
                        password_hash=password_hash,
                        is_proved=verification == "proved",
                        is_unproved=verification in ("unproved", "asked", "required"),
                        is_asked=verification in ("asked", "required"),
                        tells_owner=verification == "required",
                        locale=locale,
                        **columns,
                        **replaced(client),
                        **self.new_mail("verification", user.email, client),
                    )
                )
        except StoreFault as error:
            # The id, an identity, or the bare `email` of a row that the old server wrote.
            if self.is_taken(error, user.id, user.email, identities):
                raise EmailTaken from error
            raise
        if row[0] is not None:
            return read_user(row)
        if is_taken or self.is_taken(None, user.id, user.email, identities):
            raise EmailTaken
        raise kept_out("users", self._triggers("INSERT"))

    def is_taken(
        self,
        fault: StoreFault | None,
        user_id: str,
        key: str | None,
        identities: Sequence[ExternalIdentity],
    ) -> bool:
        """Tell whether somebody else has the key, id or an identity, where a fault may say so.

        Only what is there tells: a constraint of another's may be unique as well.
        """
        if fault is not None and fault.sqlstate not in _TAKEN:
            return False
        return bool(
            self.database.execute(
                statements.IS_TAKEN,
                user_id=user_id,
                key=key,
                identities=_pairs(identities),
            )
        )

    @contextmanager
    def explained(self, columns: dict[str, Value]) -> Iterator[None]:
        """Name what a fault does not: the column that a value does not fit into, or the table."""
        try:
            yield
        except StoreFault as fault:
            if statements.KEPT_OUT in fault.message:
                raise kept_out(
                    "identities", self._triggers("INSERT", table="identities")
                ) from fault
            if statements.ANOTHER_VALUE in fault.message:
                raise changed_by_others(self._triggers("INSERT", "UPDATE")) from fault
            if fault.sqlstate == sqlstate.STRING_TOO_LONG:
                with suppress(StoreUnavailable, StoreFault):
                    widths = self.database.execute(statements.WIDTHS)
                    for name, width in widths:
                        if 0 < width < len(str(columns.get(name) or "")):
                            fault.objects |= {"table": "users", "column": name}
            raise

    def _triggers(self, *verbs: str, table: str = "users") -> list[str]:
        """Name the triggers of others that fire before a verb; none where they cannot be found."""
        # Not at a cold start: it is needed where others keep us from what we do.
        from shared.store.postgres import neighbours

        with suppress(StoreUnavailable, StoreFault):
            return [
                trigger.name
                for trigger in neighbours.triggers(self.database.execute, [table])
                if trigger.when == "BEFORE" and trigger.verbs.intersection(verbs)
            ]
        return []

    def begin_login(self, key: str, client: Client) -> Attempt:
        """Count under three keys, and find the row that holds the email key."""
        return self._begin(statements.BEGIN_LOGIN, "login", key, client, key=key)

    def begin_reauthentication(self, session: Session, client: Client) -> Attempt:
        """Count as a login, and find the row with the session's id and epoch."""
        user = session.user
        return self._begin(
            statements.BEGIN_REAUTHENTICATION,
            "reauthentication",
            email_key(user.email),
            client,
            user_id=_uuid(user.id),
            epoch=user.epoch,
            sid=session.sid,
        )

    def _begin(
        self, statement: Statement, kind: str, address: str, client: Client, /, **found: Value
    ) -> Attempt:
        """Count an attempt on the address; `found` are the parameters that find its user."""
        account = self.pseudonyms.of(address)
        keys = Keys.of(account, self.pseudonyms.of(client.network))
        limits, began = self.limits, time.time()
        denied_by, event, seconds, at, *row = only(
            self.database.execute(
                statement,
                client_key=keys.client,
                login_key=keys.login,
                account_key=keys.account,
                nobodys_login_key=keys.nobodys_login,
                nobodys_account_key=keys.nobodys_account,
                client_limit=limits.client,
                login_limit=limits.login,
                account_limit=limits.account,
                lockout_seconds=limits.lockout_seconds,
                known_seconds=KNOWN_SECONDS,
                account=account,
                client=client.coarse,
                **found,
            )
        )
        self.database_status.compare_clocks(began, at)
        if denied_by == CLIENT:
            raise TooManyAttempts(seconds, event=f"{kind}_throttled", account=account)
        return Attempt(
            credentials=None if row[0] is None else _credentials(row),
            locked_for=seconds if denied_by else None,
            at=at.timestamp(),
            account=account,
            keys=keys,
            client=client,
            event=str(event or ""),
        )

    def end_login(self, attempt: Attempt) -> bool:
        """Count, fill up the other counts, and correct the event."""
        client = attempt.client
        statement = statements.END_LOGIN_TELLING if self.sends_mail else statements.END_LOGIN
        (is_told,) = self._succeed(
            statement, "login", attempt, **replaced(client), **self._news(client)
        )
        return bool(is_told)

    def change_password(self, attempt: Attempt, found: Credentials, new: str) -> User | None:
        """Update where the row is as it was found, and do the rest of a login."""
        with self.explained({"password": new}):
            row = self.change(
                statements.CHANGE_PASSWORD,
                "UPDATE",
                attempt,
                found,
                new_hash=new,
                **self.new_mail("password_changed", email_key(found.user.email), attempt.client),
            )
        return None if row[0] is None else read_user(row)

    def delete_user(self, attempt: Attempt, found: Credentials) -> bool:
        """Delete where the row is as it was found; its identities follow."""
        try:
            (deleted,) = self.change(
                statements.DELETE_USER, "DELETE", attempt, found, **self.notice(attempt.client)
            )
        except StoreFault as fault:
            if fault.sqlstate in sqlstate.REFERRED_TO:
                raise AccountInUse(cause=str(fault), **fault.facts) from fault
            raise
        return deleted is not None

    def change(
        self, statement: Statement, verb: str, attempt: Attempt, found: Credentials, **then: Value
    ) -> Row:
        """Do what needs the password, and give its row, of nulls where the user has changed.

        Raises StoreRefused where a trigger of another's keeps the user as they are.
        """
        as_found: dict[str, Value] = {
            "user_id": found.user.id,
            "epoch": found.user.epoch,
            "old_hash": found.password_hash,
        }
        try:
            return self._succeed(statement, "reauthentication", attempt, **as_found, **then)
        except StoreFault as fault:
            if statements.STAYED not in fault.message:
                raise
            if not self.database.execute(statements.IS_AS_FOUND, **as_found):
                return [None]
            raise kept("users", self._triggers(verb)) from fault

    def notice(self, client: Client | None) -> dict[str, Value]:
        """Give the parameters of a mail that is written with what it tells of, if mail is sent."""
        return {
            "mail_id": str(uuid.uuid4()),
            "sends_mail": self.sends_mail,
            "client": client.coarse if client else None,
        }

    def _news(self, client: Client) -> dict[str, Value]:
        """Give the parameters of a sign-in, which tells of a new network if mail is sent."""
        return self.notice(client) if self.sends_mail else {"client": client.coarse}

    def new_mail(self, kind: str, key: str, client: Client | None) -> dict[str, Value]:
        """Give those of a mail to an address, whose mails of this kind are counted."""
        hour_key, day_key = mail_keys(kind, self.pseudonyms.of(key))
        return self.notice(client) | {
            "hour_key": hour_key,
            "day_key": day_key,
            "hour_limit": PER_HOUR,
            "day_limit": PER_DAY,
        }

    def _succeed(self, statement: Statement, kind: str, attempt: Attempt, /, **then: Value) -> Row:
        """Count a success, and give the row of what follows it, of nulls where it was not done."""
        try:
            if not attempt.event:
                raise kept_out("auth_events", self._triggers("INSERT", table="auth_events"))
            is_allowed, seconds, *row = only(
                self.database.execute(
                    statement, event=attempt.event, **self._counted(attempt), **then
                )
            )
        except (StoreFault, StoreUnavailable):
            self._give_back(attempt)
            raise
        if not is_allowed:
            raise too_many(seconds, kind, succeeded(attempt), attempt.account)
        return row

    def _counted(self, attempt: Attempt) -> dict[str, Value]:
        """Give the parameters that name what an attempt was counted under."""
        keys, limits = attempt.keys, self.limits
        return {
            "client_key": keys.client,
            "login_key": keys.login,
            "account_key": keys.account,
            "success_key": success_key(succeeded(attempt).id),
            "client_limit": limits.client,
            "login_limit": limits.login,
            "account_limit": limits.account,
            "success_limit": limits.success,
            "lockout_seconds": limits.lockout_seconds,
            "known_seconds": KNOWN_SECONDS,
        }

    def _give_back(self, attempt: Attempt) -> bool:
        """Take back an attempt whose password was right, or owe it; tell whether the first.

        It may be the audit that refuses; the counts are given back then, too.
        """
        counted = self._counted(attempt)
        try:
            try:
                self.database.execute(statements.GIVE_BACK, event=attempt.event, **counted)
            except StoreFault:
                with suppress(StoreFault):
                    self.database.execute(statements.GIVE_BACK_UNAUDITED, **counted)
        except StoreUnavailable:
            self._owed.append(attempt)
            return False
        return True

    def replace_password_hash(self, user_id: str, old: str, new: str) -> bool:
        """Update where the old hash still stands."""
        with self.explained({"password": new}):
            rows = self.database.execute(
                statements.REPLACE_HASH, user_id=user_id, old_hash=old, new_hash=new
            )
        return bool(rows)

    def user(self, user_id: str, *, sid: str = "") -> User | None:
        """Find the row with the id; what is no UUID is nobody's."""
        if not _uuid(user_id):
            return None
        rows = self.database.execute(statements.SELECT_USER, user_id=user_id, sid=sid)
        return read_user(rows[0]) if rows else None

    def is_revoked_or_reconciled(self, sid: str, operation: str) -> bool:
        """Tell of a pending user whether the session was revoked, or the sign-up decided upon."""
        return bool(
            self.database.execute(statements.IS_REVOKED_OR_RECONCILED, sid=sid, operation=operation)
        )

    def account(self, user_id: str, *, sid: str) -> Account | None:
        """Find the row with the id, its identities, and the latest events."""
        if not _uuid(user_id):
            return None
        rows = self.database.execute(statements.ACCOUNT, user_id=user_id, sid=sid)
        if not rows:
            return None
        *columns, created_at, updated_at, has_password, identities, events, claims = rows[0]
        return Account(
            user=read_user(columns),
            created_at=created_at,
            updated_at=updated_at,
            has_password=has_password,
            identities=[ExternalIdentity(*pair) for pair in parse_json(identities)],
            events=parse_json(events),
            claims=parse_json(claims) or {},
        )

    def revoke_session(self, session: Session, client: Client) -> None:
        """Insert the sid, until the session would have ended."""
        for _ in range(2):
            if self.database.execute(
                statements.REVOKE_SESSION,
                sid=session.sid,
                ends_at=timestamp(session.ends_at),
                user_id=_uuid(session.user.id),
                client=client.coarse,
            ):
                return
        raise kept_out("revoked_sessions", self._triggers("INSERT", table="revoked_sessions"))

    def revoke_all_sessions(self, session: Session, client: Client) -> bool:
        """Raise the epoch, if it is the session's."""
        with self.explained({}):
            rows = self.database.execute(
                statements.REVOKE_ALL,
                user_id=_uuid(session.user.id),
                epoch=session.user.epoch,
                sid=session.sid,
                client=client.coarse,
                event=str(uuid.uuid4()),
            )
        if not rows:
            user = self.user(session.user.id, sid=session.sid)
            if user is not None and user.epoch == session.user.epoch:
                raise kept("users", self._triggers("UPDATE"))
        return bool(rows)

    def find_external(
        self,
        identities: Sequence[ExternalIdentity],
        key: str,
        token: IdToken,
        client: Client,
    ) -> ExternalMatch | None:
        """Look into `identities` first, and for the address only where nobody is there."""
        limits = self.limits
        telling = statements.FIND_EXTERNAL_TELLING
        is_used_up, is_disabled, seconds, *columns, is_linked, has_all, has_any, at, is_told = only(
            self.database.execute(
                telling if self.sends_mail else statements.FIND_EXTERNAL,
                identities=_pairs(identities),
                key=key,
                event=str(uuid.uuid4()),
                token_key=id_token_key(token.id),
                token_limit=limits.id_token,
                token_seconds=token.seconds,
                success_limit=limits.success,
                lockout_seconds=limits.lockout_seconds,
                **replaced(client),
                **self._news(client),
            )
        )
        if is_used_up:
            raise used_up()
        if columns[0] is None:
            return None
        if is_disabled:
            raise InvalidCredentials(limits.lockout_seconds, event="login_disabled")
        found = _credentials(columns)
        if seconds is not None:
            raise too_many(seconds, "login", found.user)
        return ExternalMatch(found, is_linked, has_all, has_any, at.timestamp(), is_told)

    def link(
        self,
        found: Credentials,
        identities: Sequence[ExternalIdentity],
        *,
        provider: str,
        drops_password: bool,
        client: Client,
        proves_address: bool = False,
    ) -> User | None:
        """Update where the row is as it was found, and insert the identities that it lacks."""
        user = found.user
        try:
            with self.explained({"provider": provider}):
                rows = self.database.execute(
                    statements.LINK_TELLING if self.sends_mail else statements.LINK,
                    identities=_pairs(identities),
                    user_id=user.id,
                    epoch=user.epoch,
                    old_hash=found.password_hash,
                    provider=provider,
                    drops_password=drops_password,
                    proves_address=proves_address,
                    event=str(uuid.uuid4()),
                    **replaced(client),
                    **self._news(client),
                )
        except StoreFault as error:
            if self.is_taken(error, user.id, None, identities):
                return None
            raise
        return read_user(rows[0][1:]) if rows else None

    def clean_up(self) -> bool:
        """Give back what attempts are owed, and see `Upkeep.clean_up`."""
        while self._owed and self._give_back(self._owed.popleft()):
            pass
        return self._upkeep.clean_up()

    def statistics(self, window: Window) -> Statistics:
        """Count all in one statement, and so at one moment."""
        from shared.store.postgres import statistics  # Most requests never need it.

        return statistics.count(self.database, self.replica, window)

    def close(self) -> None:
        self.database.close()


def _uuid(text: str) -> str | None:
    """Give a UUID as it is; a users file may have it in capitals."""
    return text if UUID.fullmatch(text.lower()) else None


def timestamp(seconds: float) -> str:
    """Write a time as a parameter."""
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def replaced(client: Client | None) -> dict[str, Value]:
    """Give the parameters that name the session to be ended where a new one begins, or none."""
    session = client.session if client else None
    if session is None:
        return dict.fromkeys(("replaced_sid", "replaced_until", "replaced_user_id"))
    return {
        "replaced_sid": session.sid,
        "replaced_until": timestamp(session.ends_at),
        "replaced_user_id": _uuid(session.user.id),
    }


def _pairs(identities: Sequence[ExternalIdentity]) -> str:
    return json.dumps([(identity.issuer, identity.subject) for identity in identities])


def _credentials(row: Row) -> Credentials:
    return Credentials(read_user(row), row[USER_LENGTH])
