"""What a store promises: the plain data that goes in and out, and a small protocol a part.

Every implementation passes the one contract suite: `tests/store/test_contract.py`,
`test_trust.py` and `test_attempts.py`.

Every method may raise StoreUnavailable. All are safe to call from several threads.
`client` is who asks, for counting and for the audit. What is opened, ended or deleted by time is so
by the store's own clock: where many instances share a store, it is nobody's.
What changes a user does so only if the user is still as the caller has seen them, and says so
otherwise: None, or False.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from shared.model.clients import Client
from shared.model.mails import AskedKind, Mail, OutboxStatus
from shared.model.sessions import Session
from shared.model.throttling import Keys
from shared.model.users import ExternalIdentity, IdToken, User, Verification
from shared.observe.metrics import Gauge

if TYPE_CHECKING:
    from shared.credentials.mail_tokens import MailToken
    from shared.database.pool import PoolCounts
    from shared.model.statistics import Statistics, Window


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a login needs. `password_hash` is None without a local password."""

    user: User
    password_hash: str | None = field(repr=False)


class Attempt(NamedTuple):
    """An attempt to prove a password, counted before anything is compared."""

    credentials: Credentials | None
    """None where there is nobody, and where the account has no attempt left."""
    locked_for: float | None
    """Seconds, where the account has no attempt left."""
    at: float
    """When it was counted, by the store's clock, in seconds since the Unix epoch."""
    account: str
    """The pseudonym of the address, for the log."""
    keys: Keys
    client: Client
    event: str = ""
    """Names the row of the audit that says, until now, that the attempt failed; empty where there
    is none, because the attempt is counted in memory."""
    is_offline: bool = False
    """Whether the fallback has counted it, because the database is away."""
    is_conclusive: bool = True
    """Whether all could be asked who may know the user. Where not, a password that fails may be
    right all the same."""


class Reservation(NamedTuple):
    """A sign-up, counted before anything is hashed for it."""

    is_offline: bool = False
    """Whether the fallback has counted it, because the database is away."""


class ExternalMatch(NamedTuple):
    """Who is found by the identities in an ID token, or else by its address."""

    credentials: Credentials
    is_linked: bool
    """Whether it is by an identity."""
    has_all: bool
    """Whether none can be added: every one of the identities is somebody's already, or the user has
    as many as one may have."""
    has_identities: bool
    """Whether the user has any of an account at a provider; see `BROUGHT_ISSUERS`."""
    at: float
    """When this was so, by the store's clock, in seconds since the Unix epoch."""
    is_told: bool = False
    """Whether a mail tells the user of the sign-in, because its network is new."""


class Account(NamedTuple):
    """What is stored about a user, but for the password's hash."""

    user: User
    created_at: str | None
    updated_at: str | None
    """As the old system writes times."""
    has_password: bool
    identities: list[ExternalIdentity]
    events: list[dict[str, Any]]
    """The latest of the audit, newest first: `at`, `kind` and `client`."""
    claims: dict[str, Any]
    """What another system said of the user, such as roles."""


class DatabaseHealth(NamedTuple):
    """What one round trip to the database showed."""

    timestamp: datetime
    version: str
    pool: PoolCounts


class FallbackStatus(NamedTuple):
    """What serves while the database is away, and how that is now."""

    mode: str
    """The policy: full, readonly or off."""
    since: float | None = None
    """When the database was found to be away, if it is."""
    away: float | None = None
    """For how many seconds it has been away."""
    pending: int = 0
    """Sign-ups not yet in the database."""
    snapshot: float | None = None
    """When the snapshot was taken, if there is one."""

    def gauges(self) -> list[Gauge]:
        """Give it for the metrics."""
        is_away = self.since is not None
        return [
            Gauge("db_client_away", "1 during a database outage, else 0.", is_away),
            Gauge("fallback_pending_sign_ups", "Sign-ups not yet in Postgres.", self.pending),
            Gauge(
                "fallback_snapshot_timestamp_seconds",
                "When it was taken; 0 if there is none.",
                self.snapshot or 0,
            ),
        ]


class Users(Protocol):
    """Who there is."""

    def reserve_sign_up(
        self, client: Client, identities: Sequence[ExternalIdentity] = ()
    ) -> Reservation:
        """Count a sign-up of the client's network, with the identities that it is to have.

        Raises TooManyAttempts.
        """
        ...

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
        """Store a new user, whose id the caller made and whose email is its own key.

        Where a proof of the address is asked for, a mail asks for it. Where it is required, the
        owner of a taken address is told by mail. Who is from before is known by an import alone.

        Atomic: of any number of calls with one email key, or one identity, in any process, one
        succeeds. Repeating a call whose answer was lost gives the stored user. What has counted the
        `reservation` serves this call, too. Raises EmailTaken where somebody else is known to have
        the key, the id or an identity, and nowhere else.
        """
        ...

    def user(self, user_id: str, *, sid: str = "") -> User | None:
        """Find the user with this id, which may be any text, unless the session was revoked."""
        ...

    def account(self, user_id: str, *, sid: str) -> Account | None:
        """Find all that is stored about the user, as `user` does."""
        ...


class Attempts(Protocol):
    """Proofs of a password, each counted before anything is compared, and what they allow.

    Where what follows a right password fails, the attempt is not counted as a wrong one.
    """

    def begin_login(self, key: str, client: Client) -> Attempt:
        """Count an attempt to log in, and find the user with this email key.

        Raises TooManyAttempts where the client's network has no attempt left.
        """
        ...

    def begin_reauthentication(self, session: Session, client: Client) -> Attempt:
        """Count an attempt to prove the password again, and find the session's user.

        There is none where the session has ended. Raises TooManyAttempts as `begin_login` does.
        """
        ...

    def end_login(self, attempt: Attempt) -> bool:
        """Count the success, and forget the attempts on the account; the network is known now.

        Raises TooManyAttempts where the account has had too many successes, as do `change_password`
        and `delete_user`, which then do nothing. The session that the client has ends with the
        success, as it does in whatever else begins a new one. Where it cannot be ended, only the
        browser forgets it.

        Who has other networks is told by mail of one that is new, once a week at most, here and by
        whatever else begins a session. Gives whether there may be such a mail now.
        """
        ...

    def replace_password_hash(self, user_id: str, old: str, new: str) -> bool:
        """Store the same password's new hash if the old one is there; tell whether it was."""
        ...

    def change_password(self, attempt: Attempt, found: Credentials, new: str) -> User | None:
        """Store a new hash, raise the epoch, and forget the attempts as `end_login` does."""
        ...

    def delete_user(self, attempt: Attempt, found: Credentials) -> bool:
        """Delete the user with all that is theirs; tell whether there was one to delete.

        Raises AccountInUse where data that is not the store's refers to the user.
        """
        ...


class Sessions(Protocol):
    """Which sessions have ended before their time."""

    def revoke_session(self, session: Session, client: Client) -> None:
        """End one session. Repeating it changes nothing."""
        ...

    def revoke_all_sessions(self, session: Session, client: Client) -> bool:
        """End all sessions of the session's user; tell whether it was still going on itself."""
        ...


class Identities(Protocol):
    """What providers call users."""

    def find_external(
        self,
        identities: Sequence[ExternalIdentity],
        key: str,
        token: IdToken,
        client: Client,
    ) -> ExternalMatch | None:
        """Find who has one of the identities, the first first, or else the email key.

        A user who has all of them logs in by that: the audit is written at once. The use of the
        token is counted and, for who has an identity, the success. Raises InvalidIdentityToken
        where the token has been used too often, and TooManyAttempts as `end_login` does.
        """
        ...

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
        """Give a user identities. Dropping the password ends all sessions as well."""
        ...


class Mailboxes(Protocol):
    """What is done for whoever reads a user's mailbox; where no mail is sent, none is written."""

    def ask_for_mail(
        self, kind: AskedKind, key: str, *, locale: str | None, client: Client
    ) -> None:
        """Count, and have a mail sent to the user with this email key, where there is one.

        To a disabled user none is sent, nor a verification to one whose address is proved, nor any
        above the limits of the address: that is seen by nobody, neither in the answer nor in the
        time it takes. Raises TooManyAttempts where the client's network has asked too often.
        """
        ...

    def reset_password(self, token: MailToken, new: str, client: Client) -> User | None:
        """Store a new hash, raise the epoch, and take the address for proved.

        The account's lock ends, and the user is told by mail. None where the user is not as the
        token says, or is disabled. Of an account whose address is not proved the epoch is not
        compared: a stranger who has signed up with it could end each link of its owner's in time.
        """
        ...

    def verify_email(
        self, token: MailToken, *, sid: str, client: Client, attempt: Attempt | None = None
    ) -> User | None:
        """Take the address for proved, unless it is, or the session with this id was revoked.

        An attempt that proved the password instead of a session is counted as `end_login` does.
        """
        ...

    def request_email_change(self, attempt: Attempt, found: Credentials, email: str) -> bool:
        """Have a link sent to a new address, which is its own key; tell whether it was done.

        If somebody has the address already, they are told instead. Counts as `end_login` does.
        """
        ...

    def change_email(
        self, token: MailToken, *, sid: str, client: Client, attempt: Attempt | None = None
    ) -> User | None:
        """Give the user the address that the token proves, raise the epoch, and tell the old one.

        The rest is as in `verify_email`. Raises EmailTaken.
        """
        ...

    def log_in(self, token: MailToken, client: Client) -> User | None:
        """Use a token up, and count the success as `end_login` does; the address is proved.

        Who has not proved it before loses what a stranger may have set: name, password and all
        sessions. None where the token is used up, or the user is not as it says; the epoch counts
        as in `reset_password`.
        """
        ...


class Outbox(Protocol):
    """The mails that are still to be sent."""

    def lease(self, limit: int) -> list[Mail]:
        """Take mails that are due, for a minute, and forget those for nobody."""
        ...

    def delivered(self, mail_id: str) -> None:
        """Forget a mail that was sent, or that never will be."""
        ...

    def postpone(self, mail_id: str, seconds: float) -> None:
        """Have it sent later, and count the try."""
        ...

    def status(self) -> OutboxStatus:
        """Count what waits."""
        ...


class MailStore(Mailboxes, Outbox, Protocol):
    """All that knows of mails."""


class StatisticsSource(Protocol):
    """What operators are told of users and logins."""

    def statistics(self, window: Window) -> Statistics:
        """Count users, and what the audit has of the window."""
        ...


class Maintenance(Protocol):
    """What the process asks for by itself."""

    def clean_up(self) -> bool:
        """Do a bounded part of what is due (expired rows, counts, snapshot); tell if more is."""
        ...

    def close(self) -> None:
        """Let go of connections and files. The store may be used again."""
        ...


class ExpressSessions(Protocol):
    """The old server's sessions, in the table of its connect-pg-simple."""

    def user(self, sid: str, *, exchanged: str) -> User | None:
        """Find the user of the session with this id, which may be any text.

        None where it has expired or names no user, where there are no such sessions, and where the
        session of ours that it is `exchanged` for was revoked.
        """
        ...

    def delete(self, sid: str) -> None:
        """Log out on the old server, too. Nothing to delete is no error."""
        ...


class DatabaseStatus(Protocol):
    """Database health, connections, and what serves while the database is away."""

    def health(self) -> DatabaseHealth:
        """Ask the database, within a deadline of its own."""
        ...

    def pool(self) -> PoolCounts:
        """Count connections, and ask nobody."""
        ...

    def fallback(self) -> FallbackStatus:
        """Tell what serves while the database is away, and ask nobody but the files."""
        ...


class Store(
    Users,
    Attempts,
    Sessions,
    Identities,
    StatisticsSource,
    Maintenance,
    Protocol,
):
    """What every store can do, and what not every one has."""

    express_sessions: ExpressSessions | None
    """None where the old server's sessions cannot be: they are in its database."""
    database_status: DatabaseStatus | None
    """None where there is no database."""

    @property
    def mail(self) -> MailStore:
        """What knows of mails."""
        ...
