"""The composition root: the parts of a process, each made when first needed.

Nothing here opens a connection before a request does, because functions-framework loads the
functions before its server forks. Imports wait as well: a probe needs no password hasher.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Generic, TypeVar, overload

from shared.observe import request_context
from shared.observe.notices import Notices

if TYPE_CHECKING:
    from shared.credentials.id_tokens import IdTokens, SignInTokens
    from shared.credentials.mail_tokens import MailTokens
    from shared.credentials.passwords import PasswordHasher
    from shared.credentials.session_tokens import SessionTokens
    from shared.credentials.signing import Signing
    from shared.mail.delivery import Deliverer
    from shared.mail.wake import Wake
    from shared.model.mails import OutboxStatus
    from shared.model.users import Verification
    from shared.observe.alerts import Alert, Alerts
    from shared.observe.metrics import Gauge
    from shared.revocations.redis_list import Revocations
    from shared.rules.accounts import Accounts
    from shared.rules.bulkhead import Bulkhead
    from shared.rules.gate import Gate
    from shared.rules.mailboxes import Mailboxes
    from shared.rules.sessions import Sessions
    from shared.settings import Settings
    from shared.store.contract import Store
    from shared.store.janitor import Janitor

T = TypeVar("T")


_ASKED: dict[str, Verification] = {
    "off": "unproved",
    "optional": "asked",
    "required": "required",
}
"""What is asked of new users, by EMAIL_VERIFICATION."""


class part(Generic[T]):  # noqa: N801  # a decorator, as `property` is
    """A part of an Application: made once, by the first caller, while others wait.

    Two of them would hold twice the connections, or compute twice as many hashes at once. Unlike
    `functools.cached_property`, which has no lock since Python 3.12.
    """

    def __init__(self, make: Callable[[Application], T]) -> None:
        """`make` is the method that returns the part."""
        self._make = make
        self._name = make.__name__
        self.__doc__ = make.__doc__

    @overload
    def __get__(self, app: None, owner: type[Application]) -> part[T]: ...

    @overload
    def __get__(self, app: Application, owner: type[Application]) -> T: ...

    def __get__(self, app: Application | None, owner: type[Application]) -> T | part[T]:
        if app is None:
            return self
        with app.making:
            made = vars(app)
            if self._name not in made:
                made[self._name] = self._make(app)
            value: T = made[self._name]
            return value


class Application:
    """One application with its settings. Several in a process share metrics and bounds on CPU."""

    def __init__(self, settings: Settings, process: Application | None = None) -> None:
        """Make no part yet. Of several applications the bounds on CPU are those of `process`."""
        self.settings = settings
        self._process = process or self
        self.applications: list[Application] = []
        """Of the process, if there are several and this is none of them."""
        if process is not None:
            process.applications.append(self)
        self.notices = Notices()
        self.making = threading.RLock()
        """Held while a part is made, which may need others."""

    @part
    def store(self) -> Store:
        """Where the users are."""
        assert not self.applications, "each of several applications has a store of its own"
        store = open_store(self.settings)
        if self.settings.revocations.url is None:
            return store
        from shared.store.announcing import AnnouncingStore

        return AnnouncingStore(store, lambda *ended: self.revocations.add(*ended))

    @part
    def revocations(self) -> Revocations:
        """The list in Redis of what was revoked; only where REDIS_URL is set."""
        from shared.revocations.redis_list import Revocations

        url = self.settings.revocations.url
        assert url is not None, "nobody asks for a list that is not there"
        settings = self.settings
        return Revocations(url, settings.credentials.session_secrets, settings.application)

    @part
    def janitor(self) -> Janitor:
        """Does the upkeep of the store after answers."""
        from shared.store.janitor import Janitor

        return Janitor(self.store, self.wake_deliverer)

    @part
    def signing(self) -> Signing:
        """The keys of all tokens that are ours."""
        from shared.credentials.signing import Signing

        settings = self.settings.credentials
        return Signing(settings.session_secrets, settings.session_keys)

    @part
    def tokens(self) -> SessionTokens:
        """The issuer and reader of session tokens."""
        from shared.credentials.session_tokens import SessionTokens

        return SessionTokens(self.signing, self.settings.application)

    @part
    def hasher(self) -> PasswordHasher:
        """The password hasher, with its limit of concurrent hashes."""
        from shared.credentials.passwords import PasswordHasher

        settings = self.settings.credentials
        rounds, concurrency = settings.bcrypt_rounds, settings.hash_concurrency
        shares = self._process.hasher if self._process is not self else None
        peppers = settings.password_peppers
        return PasswordHasher(rounds, concurrency=concurrency, shares=shares, peppers=peppers)

    @part
    def bulkhead(self) -> Bulkhead:
        """The places for all that belongs to hashes, of the whole process."""
        from shared.rules.bulkhead import Bulkhead

        concurrency, threads = self.settings.credentials.hash_concurrency, self.settings.web.threads
        return Bulkhead.of(concurrency, threads, max(1, len(self.applications)))

    @part
    def gate(self) -> Gate:
        """The limits before every hash."""
        from shared.rules.gate import Gate

        return Gate(self._process.bulkhead, self.settings.application)

    @part
    def google_id_tokens(self) -> IdTokens:
        """The verifier of Google's ID tokens, with its certificates."""
        from shared.credentials import id_tokens

        return id_tokens.IdTokens(id_tokens.GOOGLE)

    @part
    def sign_in_tokens(self) -> SignInTokens:
        """The verifier of users' ID tokens; where no provider is set, it refuses all."""
        from shared.credentials.id_tokens import SignInTokens

        settings = self.settings.credentials
        return SignInTokens(
            self.google_id_tokens, settings.google_client_ids, settings.firebase_project_id
        )

    @part
    def accounts(self) -> Accounts:
        """The rules of accounts with a password."""
        from shared.rules.accounts import Accounts

        return Accounts(
            self.store,
            self.hasher,
            self.gate,
            password_min_length=self.settings.credentials.password_min_length,
            lockout_seconds=self.settings.store.limits.lockout_seconds,
            verification=_ASKED[self.settings.mail.verification],
        )

    @part
    def mail_tokens(self) -> MailTokens:
        """The tokens in the links of mails."""
        from shared.credentials.mail_tokens import MailTokens

        return MailTokens(self.signing, self.settings.application)

    @part
    def mailboxes(self) -> Mailboxes:
        """The rules of what is asked for and proved by mail."""
        from shared.rules.mailboxes import Mailboxes

        return Mailboxes(
            self.store.mail,
            self.store,
            self.accounts,
            self.mail_tokens,
            self.hasher,
            self.gate,
        )

    @part
    def deliverer(self) -> Deliverer:
        """Delivers the mails of the outbox."""
        from shared.mail.delivery import Deliverer

        return Deliverer(self.store.mail, self.mail_tokens, self.settings.mail)

    @part
    def wake(self) -> Wake:
        """Has the outbox delivered where that cannot be after an answer."""
        from shared.mail.wake import Wake

        settings = self.settings
        url = settings.mail.public_url or ""
        return Wake(settings.credentials.session_secrets, url, settings.application)

    def wake_deliverer(self) -> None:
        """Have the outbox delivered, where mail is sent at all; nobody waits for it.

        By a request to ourselves where the CPU goes with an answer.
        """
        if not self.settings.mail.enabled:
            return
        if self.settings.mail.delivery == "self":
            self.wake.send(time.time())
        else:
            self.deliverer.wake()

    @part
    def sessions(self) -> Sessions:
        """The rules of sessions. A fresh one is read without the store, which is not made then."""
        from shared.rules.sessions import Sessions

        if self.settings.revocations.url is None:
            return Sessions(lambda: self.store, self.tokens)
        return Sessions(lambda: self.store, self.tokens, lambda one: self.revocations.has(one))

    @part
    def alerts(self) -> Alerts:
        """The alerts of this process."""
        from shared.observe.alerts import Alerts

        return Alerts(self.settings.alerts, self.settings.application)

    def check_alerts(self) -> None:
        """See whether something is wrong, and tell whoever should know."""
        for app in self.applications:  # That nobody calls an application is no reason not to look.
            app.check_alerts()
        webhook = self.settings.alerts.webhook
        away, unsent = self.seconds_away(), self._seconds_unsent()
        with request_context.application(self.settings.application):
            self.alerts.check(away, unsent, webhook, time.monotonic())

    def seconds_away(self) -> float | None:
        """Give the duration of the current outage, or None; does not query the database."""
        # A process that was only probed has no store, and needs none for this.
        store: Store | None = vars(self).get("store")
        database = store.database_status if store is not None else None
        return database.fallback().away if database is not None else None

    def outbox_status(self) -> OutboxStatus | None:
        """Give what waits as far as this process knows by delivering; does not query the store."""
        deliverer: Deliverer | None = vars(self).get("deliverer")
        return deliverer.status if deliverer is not None else None

    def judge_alerts(self) -> list[Alert]:
        """Give the state of each alert."""
        return self.alerts.judge(self.seconds_away(), self._seconds_unsent(), time.monotonic())

    def _seconds_unsent(self) -> float:
        status = self.outbox_status()
        return status.oldest if status is not None else 0.0

    def gauges(self) -> list[Gauge]:
        """Give the current values; does not query the database."""
        from shared.observe.metrics import STARTED_AT, Gauge

        started = Gauge("process_start_time_seconds", "Start time of the process.", STARTED_AT)
        found = [started, *self._process.bulkhead.gauges()]
        return [*found, *self.own_gauges()]

    def own_gauges(self) -> list[Gauge]:
        """Give those that are not the whole process's."""
        if self.applications:
            return [gauge for app in self.applications for gauge in app.own_gauges()]
        found: list[Gauge] = []
        database = self.store.database_status
        if database is not None:
            found += [*database.pool().gauges(), *database.fallback().gauges()]
        if (revocations := vars(self).get("revocations")) is not None:
            found += revocations.gauges()
        if (outbox := self.outbox_status()) is not None:
            found += _outbox_gauges(outbox)
        if name := self.settings.application:
            found = [gauge._replace(labels=(("application", name),)) for gauge in found]
        return found

    def close(self) -> None:
        """Close connections and files. The application can be used again."""
        for app in self.applications:
            app.close()
        if (deliverer := vars(self).get("deliverer")) is not None:
            deliverer.close()
        if (wake := vars(self).get("wake")) is not None:
            wake.close()
        if (revocations := vars(self).get("revocations")) is not None:
            revocations.close()
        if "store" in vars(self):
            self.store.close()


def _outbox_gauges(outbox: OutboxStatus) -> list[Gauge]:
    from shared.observe.metrics import Gauge

    return [
        Gauge("mail_outbox_waiting", "Mails that waited after the last delivery.", outbox.waiting),
        Gauge("mail_outbox_oldest_seconds", "For how long the oldest has.", outbox.oldest),
    ]


def open_store(settings: Settings) -> Store:
    """Make the store that the settings name. It neither connects nor reads yet."""
    secrets = settings.credentials.session_secrets
    if not settings.store.use_database:
        from shared.store.json_file.store import JsonFileStore

        return JsonFileStore(settings.store, secrets, sends_mail=settings.mail.enabled)
    if settings.store.fallback == "off":
        from shared.store.postgres.store import PostgresStore

        return PostgresStore(
            settings.store, settings.database, secrets, sends_mail=settings.mail.enabled
        )
    from shared.store.fallback import FallbackStore

    return FallbackStore(
        settings.store, settings.database, secrets, sends_mail=settings.mail.enabled
    )
