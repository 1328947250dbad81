"""Mails in Postgres: asked for, written with what they tell of, leased and delivered."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from shared.database.session import Row
from shared.database.statement import Statement, Value
from shared.errors import EmailTaken, StoreFault, TooManyAttempts
from shared.model.clients import Client
from shared.model.emails import email_key
from shared.model.mails import PER_DAY, PER_HOUR, AskedKind, Mail, OutboxStatus
from shared.model.throttling import Keys, mail_client_key, mail_keys
from shared.model.users import User
from shared.store.contract import Attempt, Credentials, MailStore
from shared.store.postgres import mail_statements, outbox_sql
from shared.store.postgres.rows import only, read_user
from shared.store.postgres.store import replaced, timestamp

if TYPE_CHECKING:
    from shared.credentials.mail_tokens import MailToken
    from shared.store.postgres.store import PostgresStore

_ID_OF_LOGIN = 2
"""The column of LOGIN_BY_MAIL."""


class PostgresMail(MailStore):
    """The part of a store that knows of mails; a method is one statement.

    A link that is of no use costs a second one.
    """

    def __init__(self, store: PostgresStore) -> None:
        """Use the store's connections, limits and pseudonyms."""
        self._store = store

    def ask_for_mail(
        self, kind: AskedKind, key: str, *, locale: str | None, client: Client
    ) -> None:
        """Count under three keys, and write a row for the user, or for nobody."""
        store, limits = self._store, self._store.limits
        account = store.pseudonyms.of(key)
        hour_key, day_key = mail_keys(kind, account)
        network = store.pseudonyms.of(client.network)
        nobodys_hour_key, nobodys_day_key = mail_keys(kind, account[:2])
        is_allowed, seconds = only(
            self._store.database.execute(
                mail_statements.ASK,
                kind=kind,
                key=key,
                client_key=mail_client_key(network),
                login_key=Keys.of(account, network).login,
                client_limit=limits.client,
                lockout_seconds=limits.lockout_seconds,
                hour_key=hour_key,
                day_key=day_key,
                nobodys_hour_key=nobodys_hour_key,
                nobodys_day_key=nobodys_day_key,
                hour_limit=PER_HOUR,
                day_limit=PER_DAY,
                account=account,
                locale=locale,
                client=client.coarse,
                mail_id=str(uuid.uuid4()),
            )
        )
        if not is_allowed:
            raise TooManyAttempts(seconds, event="mail_throttled", account=account)

    def reset_password(self, token: MailToken, new: str, client: Client) -> User | None:
        """Update where the row is as the token says."""
        account = self._store.pseudonyms.of(email_key(token.email))
        keys = Keys.of(account, self._store.pseudonyms.of(client.network))
        with self._store.explained({"password": new}):
            rows = self._store.database.execute(
                mail_statements.RESET_PASSWORD,
                user_id=token.user_id,
                epoch=token.epoch,
                email_digest=token.email_digest,
                new_hash=new,
                login_key=keys.login,
                account_key=keys.account,
                login_limit=self._store.limits.login,
                account_limit=self._store.limits.account,
                **self._store.new_mail("password_changed", token.email, client),
            )
        return read_user(rows[0]) if rows else None

    def verify_email(
        self, token: MailToken, *, sid: str, client: Client, attempt: Attempt | None = None
    ) -> User | None:
        """Update where the row is as the token says."""
        if attempt is not None:
            return self._by_password(
                mail_statements.VERIFY_BY_PASSWORD, attempt, email_digest=token.email_digest
            )
        rows = self._use(mail_statements.VERIFY_EMAIL, **_of(token), sid=sid, client=client.coarse)
        return read_user(rows[0]) if rows else None

    def _use(self, statement: Statement, /, **parameters: Value) -> list[Row]:
        """Use a link, once more where nothing was found.

        A first run whose answer was lost may have been committed while the repeated one waited for
        the user's row, and saw nothing else of it.
        """
        rows = self._store.database.execute(statement, **parameters)
        # A row begins with the user's id, and that of a login with whether it is denied.
        is_used = rows and (rows[0][0] or rows[0][_ID_OF_LOGIN] is not None)
        return rows if is_used else self._store.database.execute(statement, **parameters)

    def _by_password(self, statement: Statement, attempt: Attempt, **then: Value) -> User | None:
        assert attempt.credentials is not None, "somebody has proved a password"
        row = self._store.change(statement, "UPDATE", attempt, attempt.credentials, **then)
        return None if row[0] is None else read_user(row)

    def request_email_change(self, attempt: Attempt, found: Credentials, email: str) -> bool:
        """Write a row for the new address, or for its owner."""
        (done,) = self._store.change(
            mail_statements.REQUEST_EMAIL_CHANGE,
            "UPDATE",
            attempt,
            found,
            email=email,
            **self._store.new_mail("email_change", email, attempt.client),
        )
        return done is not None

    def change_email(
        self, token: MailToken, *, sid: str, client: Client, attempt: Attempt | None = None
    ) -> User | None:
        """Update where the row is as the token says, and let the database decide."""
        try:
            with self._store.explained({"email": token.email}):
                if attempt is not None:
                    return self._by_password(
                        mail_statements.CHANGE_EMAIL_BY_PASSWORD,
                        attempt,
                        email_digest=token.email_digest,
                        email=token.email,
                        **self._store.notice(client),
                    )
                rows = self._use(
                    mail_statements.CHANGE_EMAIL,
                    **_of(token),
                    email=token.email,
                    sid=sid,
                    **self._store.notice(client),
                )
        except StoreFault as error:
            if self._store.is_taken(error, token.user_id, token.email, ()):
                raise EmailTaken from error
            raise
        return read_user(rows[0]) if rows else None

    def log_in(self, token: MailToken, client: Client) -> User | None:
        """Insert the token's id among the sessions that have ended."""
        limits = self._store.limits
        is_denied, seconds, *row = only(
            self._use(
                mail_statements.LOGIN_BY_MAIL,
                **_of(token),
                used_sid=f"mail:{token.id}",
                ends_at=timestamp(token.ends_at),
                success_limit=limits.success,
                lockout_seconds=limits.lockout_seconds,
                **replaced(client),
                **self._store.notice(client),
            )
        )
        if is_denied:
            raise TooManyAttempts(seconds, event="login_throttled", user_id=token.user_id)
        return None if row[0] is None else read_user(row)

    def lease(self, limit: int) -> list[Mail]:
        """Take rows that nobody else has taken."""
        rows = self._store.database.execute(outbox_sql.LEASE, limit=limit)
        return [Mail._make(row) for row in rows]

    def delivered(self, mail_id: str) -> None:
        """Delete the row, and with it the recipient."""
        self._store.database.execute(outbox_sql.DELIVERED, mail_id=mail_id)

    def postpone(self, mail_id: str, seconds: float) -> None:
        """Set when it is due again."""
        self._store.database.execute(outbox_sql.POSTPONE, mail_id=mail_id, seconds=seconds)

    def status(self) -> OutboxStatus:
        """Count the rows that are for somebody."""
        return OutboxStatus._make(only(self._store.database.execute(outbox_sql.STATUS)))


def _of(token: MailToken) -> dict[str, Value]:
    """Give the parameters of the user whom a token is about, and of the event of its use."""
    return {
        "user_id": token.user_id,
        "epoch": token.epoch,
        "email_digest": token.email_digest,
        "event": str(uuid.uuid4()),
    }
