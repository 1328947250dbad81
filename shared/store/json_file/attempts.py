"""Counts attempts by the rules of `shared.model.throttling`, in memory.

A lock ends by a clock that nobody can set. A row says how many attempts are left, as in SQL.
"""

from __future__ import annotations

import threading
import time

from shared.errors import InvalidCredentials, TooManyAttempts
from shared.model.clients import Client
from shared.model.mails import NOTICE_SECONDS, PER_DAY, PER_HOUR
from shared.model.throttling import (
    HOME,
    KNOWN_SECONDS,
    Keys,
    Limits,
    Pseudonyms,
    id_token_key,
    mail_client_key,
    mail_keys,
    notice_key,
    sign_up_key,
    success_key,
)
from shared.model.users import IdToken, User
from shared.store.attempt_outcomes import ACCOUNT, CLIENT, succeeded, too_many, used_up
from shared.store.contract import Attempt, Credentials

HOUR = 3600.0
MAX_NETWORKS = 20
"""Of one user, from which they have signed in lately."""
MAX_ROWS = 20_000
"""Whoever has that many networks can make memory forget the oldest."""


class MemoryAttempts:
    """Attempts of one process, which forgets them when it ends. Safe to share between threads."""

    def __init__(self, limits: Limits, pseudonyms: Pseudonyms) -> None:
        """Begin without any attempt."""
        self._limits = limits
        self._pseudonyms = pseudonyms
        self._rows: dict[str, _Row] = {}
        self._networks: dict[str, dict[str, float]] = {}
        """Of each user who has signed in, and until when each is known."""
        self._counting = threading.Lock()

    def begin(self, kind: str, found: Credentials | None, key: str, client: Client) -> Attempt:
        """Count an attempt on whoever was found for the email key. Raises TooManyAttempts."""
        account = self._pseudonyms.of(key)
        keys = Keys.of(account, self._pseudonyms.of(client.network))
        now = time.monotonic()
        denied_by, until = self._begin(keys, now, is_somebody=found is not None)
        if denied_by == CLIENT:
            raise TooManyAttempts(until - now, event=f"{kind}_throttled", account=account)
        return Attempt(
            credentials=None if denied_by else found,
            locked_for=until - now if denied_by else None,
            at=time.time(),
            account=account,
            keys=keys,
            client=client,
        )

    def sign_up(self, client: Client) -> None:
        """Count a sign-up. Raises TooManyAttempts."""
        key, now = sign_up_key(self._pseudonyms.of(client.network)), time.monotonic()
        with self._counting:
            row = self._spend(key, self._limits.sign_up, now)
        if row.remaining < 0:
            raise TooManyAttempts(row.expires_at - now, event="signup_throttled")

    def sign_in(self, token: IdToken, linked: User | None) -> None:
        """Count the use of an ID token, and the success of the user whom it names, if it does.

        Raises InvalidIdentityToken and TooManyAttempts.
        """
        key, limits, now = id_token_key(token.id), self._limits, time.monotonic()
        with self._counting:
            use = self._spend(key, limits.id_token, now, seconds=token.seconds, prolongs=False)
            if use.remaining < 0:
                raise used_up()
            if linked is None:
                return
            row = self._spend(success_key(linked.id), limits.success, now, prolongs=False)
        if row.remaining < 0:
            raise too_many(row.expires_at - now, "login", linked)

    def _begin(self, keys: Keys, now: float, *, is_somebody: bool) -> tuple[str | None, float]:
        """Count under three keys; tell who denies it, and until when."""
        limits = self._limits
        with self._counting:
            client = self._spend(keys.client, limits.client, now)
            login = self._spend(
                keys.login if is_somebody else keys.nobodys_login,
                limits.login,
                now,
                is_spent=client.remaining >= 0,
            )
            is_known = login.known_until > now
            account = self._spend(
                keys.account if is_somebody else keys.nobodys_account,
                limits.account,
                now,
                is_spent=client.remaining >= 0 and login.remaining >= 0 and not is_known,
            )
            if client.remaining < 0:
                return CLIENT, client.expires_at
            if login.remaining < 0 and is_somebody:
                return ACCOUNT, login.expires_at
            is_denied = is_somebody and account.remaining < 0 and not is_known
            return ACCOUNT if is_denied else None, account.expires_at

    def ask_for_mail(self, kind: str, key: str, client: Client, *, is_somebody: bool) -> bool:
        """Count a mail that is asked for; tell whether the address has one left.

        Raises TooManyAttempts where the network has none left.
        """
        account, now = self._pseudonyms.of(key), time.monotonic()
        network = self._pseudonyms.of(client.network)
        client_key = mail_client_key(network)
        with self._counting:
            row = self._spend(client_key, self._limits.client, now)
            login = self._rows.get(Keys.of(account, network).login)
            home = HOME if login is not None and login.known_until > now else ""
            is_left = row.remaining >= 0 and self._count_mail(
                kind, f"{account}{home}" if is_somebody else account[:2], now
            )
        if row.remaining < 0:
            raise TooManyAttempts(row.expires_at - now, event="mail_throttled", account=account)
        return is_left

    def _count_mail(self, kind: str, account: str, now: float) -> bool:
        hour_key, day_key = mail_keys(kind, account)
        hour = self._spend(hour_key, PER_HOUR, now, seconds=HOUR, prolongs=False)
        is_spent = hour.remaining >= 0
        day = self._spend(
            day_key, PER_DAY, now, is_spent=is_spent, seconds=24 * HOUR, prolongs=False
        )
        return is_spent and day.remaining >= 0

    def unlock(self, key: str, client: Client) -> None:
        """Fill up the counts of an account whose owner has proved to be it by mail."""
        keys = Keys.of(self._pseudonyms.of(key), self._pseudonyms.of(client.network))
        with self._counting:
            if login := self._rows.get(keys.login):
                login.remaining = self._limits.login
            if account := self._rows.get(keys.account):
                account.remaining = self._limits.account

    def succeed(self, attempt: Attempt, kind: str) -> None:
        """Count a success, and forget the attempts before it. Raises TooManyAttempts."""
        user, now = succeeded(attempt), time.monotonic()
        with self._counting:
            row = self._spend(success_key(user.id), self._limits.success, now, prolongs=False)
            gives_back, is_login = row.remaining >= 0, kind == "login"
            self._forget(attempt.keys, now, gives_back=gives_back, is_login=is_login)
        if row.remaining < 0:
            raise too_many(row.expires_at - now, kind, user, attempt.account)

    def is_news(self, user_id: str, client: Client) -> bool:
        """Note from where a user signs in.

        Tell whether that is new, others are known, and none was told of for a week.
        """
        now, network = time.monotonic(), self._pseudonyms.of(client.coarse)
        with self._counting:
            known = self._networks.pop(user_id, {})
            known = {name: until for name, until in known.items() if until > now}
            is_new = bool(known) and network not in known
            known.pop(network, None)  # To be the latest of them.
            while len(known) >= MAX_NETWORKS:
                del known[next(iter(known))]
            while len(self._networks) >= MAX_ROWS:
                del self._networks[next(iter(self._networks))]
            self._networks[user_id] = known | {network: now + KNOWN_SECONDS}
            if not is_new:
                return False
            key = notice_key(user_id)
            row = self._spend(key, 1, now, seconds=NOTICE_SECONDS, prolongs=False)
        return row.remaining >= 0

    def count_mail(self, kind: str, key: str) -> bool:
        """Count a mail to an address; tell whether it has one left."""
        with self._counting:
            return self._count_mail(kind, self._pseudonyms.of(key), time.monotonic())

    def log_in_by_mail(self, user: User) -> None:
        """Count a success. Raises TooManyAttempts."""
        now = time.monotonic()
        with self._counting:
            row = self._spend(success_key(user.id), self._limits.success, now, prolongs=False)
        if row.remaining < 0:
            raise too_many(row.expires_at - now, "login", user)

    def refused(self, event: str) -> InvalidCredentials:
        """Make the answer of a wrong password, for who may not come in."""
        return InvalidCredentials(self._limits.lockout_seconds, event=event)

    def forget(self, keys: Keys) -> None:
        """Forget an attempt that another store has counted as a login."""
        with self._counting:
            self._forget(keys, time.monotonic(), gives_back=True, is_login=True)

    def _forget(self, keys: Keys, now: float, *, gives_back: bool, is_login: bool) -> None:
        client = self._rows.get(keys.client)
        if client and gives_back:
            client.remaining = min(client.remaining + 1, self._limits.client)
        if login := self._rows.get(keys.login):
            login.remaining = self._limits.login
            if is_login:
                login.known_until = now + KNOWN_SECONDS
        if account := self._rows.get(keys.account):
            account.remaining = self._limits.account

    def clean_up(self) -> None:
        """Forget what has expired."""
        now = time.monotonic()
        with self._counting:
            self._rows = {key: row for key, row in self._rows.items() if row.done_at > now}

    def _spend(
        self,
        key: str,
        limit: int,
        now: float,
        *,
        is_spent: bool = True,
        seconds: float | None = None,
        prolongs: bool = True,
    ) -> _Row:
        lock_end = now + (self._limits.lockout_seconds if seconds is None else seconds)
        row = self._rows.get(key)
        if row is None:
            while len(self._rows) >= MAX_ROWS:
                del self._rows[next(iter(self._rows))]
            row = self._rows[key] = _Row(limit, lock_end)
        elif row.expires_at <= now:
            row.remaining, row.expires_at = limit, lock_end
        elif prolongs and is_spent and row.remaining > 0:
            row.expires_at = lock_end
        row.remaining = max(row.remaining - is_spent, -2)
        return row


class _Row:
    __slots__ = ("expires_at", "known_until", "remaining")

    def __init__(self, remaining: int, expires_at: float) -> None:
        self.remaining = remaining
        self.expires_at = expires_at
        self.known_until = float("-inf")

    @property
    def done_at(self) -> float:
        return max(self.expires_at, self.known_until)
