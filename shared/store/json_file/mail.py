"""Mails of the JSON store: a change of the users file, and a mail in the folder beside it."""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING

from shared.errors import EmailTaken, StoreUnavailable
from shared.formats.timestamps import now_iso
from shared.model.clients import Client
from shared.model.emails import email_key
from shared.model.mails import AskedKind, Kind, Mail, OutboxStatus, digest_of
from shared.model.user_record import REVOKED
from shared.model.users import User, next_epoch
from shared.observe import log
from shared.store.contract import Attempt, Credentials, MailStore
from shared.store.json_file import users_file
from shared.store.json_file.outbox import OutboxFolder
from shared.store.json_file.store import unforgotten
from shared.store.json_file.users_file import VERIFIED_AT, Record

if TYPE_CHECKING:
    from shared.credentials.mail_tokens import MailToken
    from shared.store.json_file.store import JsonFileStore

NOBODY = ""
"""The recipient of a mail that is written so that nobody can tell that there is nobody.

All of it is made as for somebody, which takes as long.
"""


class JsonFileMail(MailStore):
    """The part of a JSON store that knows of mails."""

    def __init__(self, store: JsonFileStore, outbox: OutboxFolder, *, sends_mail: bool) -> None:
        """Use the store's users, and a folder."""
        self._store = store
        self._outbox = outbox
        self._sends_mail = sends_mail

    def lease(self, limit: int) -> list[Mail]:
        return self._outbox.lease(limit)

    def delivered(self, mail_id: str) -> None:
        self._outbox.delivered(mail_id)

    def postpone(self, mail_id: str, seconds: float) -> None:
        self._outbox.postpone(mail_id, seconds)

    def status(self) -> OutboxStatus:
        return self._outbox.status()

    def ask_for_mail(
        self, kind: AskedKind, key: str, *, locale: str | None, client: Client
    ) -> None:
        """Count in memory, and write a file for the user, or for nobody."""
        found = self._store.record(key=key)
        record, is_somebody = found or {"id": NOBODY, "email": key}, found is not None
        is_wanted = all(
            (
                self._store.attempts.ask_for_mail(kind, key, client, is_somebody=is_somebody),
                is_somebody,
                users_file.is_enabled(record),
                kind != "verification" or record.get(VERIFIED_AT) is None,
            )
        )
        self._put(kind, record, locale, client, is_wanted=is_wanted)

    def reset_password(self, token: MailToken, new: str, client: Client) -> User | None:
        """Change the record that is as the token says."""

        def change(record: Record) -> Record | None:
            if not _is_users_link(record, token):
                return None
            self._tell("password_changed", record, client)  # Who has the mailbox did it.
            return {
                "password": new,
                "epoch": next_epoch(record.get("epoch", 0)),
                VERIFIED_AT: record.get(VERIFIED_AT) or now_iso(),
            }

        changed = self._store.change_as(token.user_id, change)
        if changed is not None:
            self._store.attempts.unlock(email_key(token.email), client)
        return changed

    def verify_email(
        self, token: MailToken, *, sid: str, client: Client, attempt: Attempt | None = None
    ) -> User | None:
        """Change the record that is as the token says, unless the address is proved."""
        self._succeed(attempt)

        def change(record: Record) -> Record | None:
            is_open = record.get(VERIFIED_AT) is None and sid not in record.get(REVOKED, {})
            return {VERIFIED_AT: now_iso()} if is_open and _is_as(record, token) else None

        return self._store.change_as(token.user_id, change)

    def request_email_change(self, attempt: Attempt, found: Credentials, email: str) -> bool:
        """Write a file for the new address, or for its owner."""
        self._store.attempts.succeed(attempt, "reauthentication")
        record = self._store.record(key=email_key(found.user.email))
        if not users_file.is_as_found(record, found):
            return False
        if not self._store.attempts.count_mail("email_change", email):
            return True
        owner = self._store.record(key=email)
        if owner is None:
            self._put("email_change", record, None, attempt.client, recipient=email)
        elif users_file.is_enabled(owner):
            self._put("address_taken", owner, None, attempt.client)
        return True

    def change_email(
        self, token: MailToken, *, sid: str, client: Client, attempt: Attempt | None = None
    ) -> User | None:
        """Change the record that is as the token says."""
        self._succeed(attempt)

        def change(record: Record) -> Record | None:
            if not _is_as(record, token) or sid in record.get(REVOKED, {}):
                return None
            owner = self._store.record(key=token.email)
            if owner is not None and owner["id"] != token.user_id:
                raise EmailTaken
            self.tell("email_changed", record, client)
            return {
                "email": token.email,
                "epoch": next_epoch(token.epoch),
                VERIFIED_AT: now_iso(),
            }

        return self._store.change_as(token.user_id, change)

    def log_in(self, token: MailToken, client: Client) -> User | None:
        """Keep the token's id with the sessions of the record that have ended."""

        def change(record: Record) -> Record | None:
            used = record.get(REVOKED, {})
            sid = f"mail:{token.id}"
            if not _is_users_link(record, token) or sid in used:
                return None
            self._store.attempts.log_in_by_mail(users_file.user(record))
            self.tell_of_network(record, client)
            changes: Record = {
                REVOKED: unforgotten(used) | {sid: token.ends_at},
                VERIFIED_AT: record.get(VERIFIED_AT) or now_iso(),
            }
            if users_file.user(record).email_verified is False:
                epoch = next_epoch(record.get("epoch", 0))
                changes |= {"name": None, "password": None, "epoch": epoch}
            return changes

        user = self._store.change_as(token.user_id, change)
        if user is not None:
            self._store.end_replaced(client)
        return user

    def _succeed(self, attempt: Attempt | None) -> None:
        if attempt is not None:
            self._store.attempts.succeed(attempt, "reauthentication")

    def ask_for_proof(self, record: Record, client: Client | None) -> None:
        """Have a mail sent to who is being created."""
        if self._store.attempts.count_mail("verification", record["email"]):
            self._put("verification", record, None, client)

    def tell_owner(self, key: str, locale: str | None, client: Client | None) -> None:
        """Tell the owner of an address that somebody wanted to sign up with it."""
        owner = self._store.record(key=key)
        if self._store.attempts.count_mail("verification", key):
            is_told = owner is not None and users_file.is_enabled(owner)
            owner = owner or {"id": NOBODY, "email": key}
            self._put("address_taken", owner, locale, client, is_wanted=is_told)

    def tell_of_network(self, record: Record, client: Client | None) -> bool:
        """Tell who signs in from a network that is new, if others are known; tell if that is so."""
        if client is None:
            return False
        is_news = self._store.attempts.is_news(record["id"], client)
        if is_news:
            self.tell("new_sign_in", record, client)
        return is_news

    def tell(self, kind: Kind, record: Record, client: Client | None) -> None:
        """Tell a user of a change, before it is made.

        Whoever is killed in between has told too much, not too little. An address that is known
        not to be proved may be a stranger's, whom nobody is to flood with mail.
        """
        if users_file.user(record).email_verified is not False:
            self._tell(kind, record, client)

    def _tell(self, kind: Kind, record: Record, client: Client | None) -> None:
        # What can be repeated is counted.
        if kind != "password_changed" or self._store.attempts.count_mail(
            kind, email_key(record["email"])
        ):
            self._put(kind, record, None, client)

    def clean_up(self) -> None:
        """Forget what nobody delivers any more, such as where mail was switched off."""
        self._outbox.clean_up()

    def forget(self, user_id: str) -> None:
        """Leave out what is still to be sent to a user who has just been deleted."""
        if not self._sends_mail:
            return
        try:
            self._outbox.forget(user_id)
        except StoreUnavailable as error:
            sentence = "Mails to a deleted user could not be left out, and will be sent"
            log.write("WARNING", sentence, cause=error.cause)

    def _put(
        self,
        kind: Kind,
        record: Record,
        locale: str | None,
        client: Client | None,
        *,
        recipient: str | None = None,
        is_wanted: bool = True,
    ) -> None:
        if not self._sends_mail:
            return
        user = users_file.user(record)
        mail = Mail(
            id=str(uuid.uuid4()),
            kind=kind,
            recipient=recipient or user.email,
            user_id=user.id,
            epoch=user.epoch,
            email_digest=digest_of(email_key(user.email)),
            locale=record.get("locale") or locale,
            asked_from=client.coarse if client else None,
            created_at=time.time(),
            tries=0,
        )
        if not is_wanted:
            mail = mail._replace(recipient=NOBODY, user_id=NOBODY, epoch=0, email_digest="")
        self._outbox.put(mail)


def _is_as(record: Record, token: MailToken) -> bool:
    """Tell whether a user is as a token says, and may do what it is for."""
    return _has_address(record, token) and record.get("epoch", 0) == token.epoch


def _is_users_link(record: Record, token: MailToken) -> bool:
    """Tell the same of what the mailbox alone is enough for.

    An account whose address is not proved may be a stranger's, who could end each link in time by
    what raises the epoch.
    """
    return _is_as(record, token) or (
        _has_address(record, token) and users_file.user(record).email_verified is False
    )


def _has_address(record: Record, token: MailToken) -> bool:
    is_same = digest_of(email_key(record["email"])) == token.email_digest
    return is_same and users_file.is_enabled(record)
