"""The errors of the domain: each has a stable code and a sentence fit for the user.

What the user may read is `sentence`; what only the log may read is `cause`. Which HTTP status an
AuthError becomes is decided in `web/problems.py` alone; HttpError is the edge's own.
"""

from __future__ import annotations

import math
from typing import ClassVar


def is_server_error(status: int) -> bool:
    """Tell whether a status is a server error.

    501 is not: it tells the client what no function here takes (RFC 9110, section 15.6.2).
    """
    return status >= 500 and status != 501


def _in_words(seconds: float) -> str:
    """Give a duration in the unit that people use for it, rounded up."""
    units = {"hour": 3600, "minute": 60}
    unit = next((unit for unit, size in units.items() if seconds >= 2 * size), "second")
    number = math.ceil(seconds / units.get(unit, 1))
    return f"{number} {unit}{'' if number == 1 else 's'}"


class AuthError(Exception):
    """The base of every error that has an answer of its own."""

    code: ClassVar[str]
    sentence: str

    def __init__(
        self, sentence: str | None = None, *, cause: str | None = None, **facts: str | bool | None
    ) -> None:
        """`sentence` is shown to the user, `cause` and the facts are only logged."""
        if sentence is not None:
            self.sentence = sentence
        self.cause = cause
        self.facts = facts
        super().__init__(cause or self.sentence)


class InvalidInput(AuthError):
    """An invalid member of the body; `field` names it."""

    code = "invalid_input"

    def __init__(self, field: str, sentence: str | None = None, **facts: str | None) -> None:
        """`field` is the member's name in the request's body."""
        super().__init__(sentence, **facts)
        self.field = field


class InvalidCredentials(AuthError):
    """Unknown user, wrong password, a user without one, or no attempt left: the same answer."""

    code = "invalid_credentials"

    def __init__(
        self, lockout_seconds: float, *, asks_for_proof: bool = False, **facts: str | None
    ) -> None:
        """Everybody is told how long a lock lasts, so that nobody learns who is locked.

        And what to do about an address that is not proved, where a login asks for that.
        """
        wait = _in_words(lockout_seconds)
        sentence = f"Invalid email or password. If you have tried several times, wait {wait}."
        if asks_for_proof:
            sentence += (
                " If you have just signed up, please first follow the link in the email that we "
                "sent you."
            )
        super().__init__(sentence, **facts)


class NotAuthenticated(AuthError):
    """There is no session, or it is not valid (any more)."""

    code = "not_authenticated"
    sentence = "Not authenticated"


class WrongPassword(InvalidInput):
    """The password that confirms a change of the account is wrong."""

    code = "wrong_password"
    sentence = "Your current password is not correct"


class PasswordUnchanged(InvalidInput):
    """The new password is the one that is to be changed."""

    code = "password_unchanged"
    sentence = "The new password must not be the current one"


class ReauthenticationRequired(AuthError):
    """The account has no password, and the session is not fresh from its provider or a link."""

    code = "reauthentication_required"
    sentence = (
        "You have no password yet. Please log out, sign in again, and do this within ten minutes."
    )


class TooManyAttempts(AuthError):
    """No attempt is left. `retry_after` is in seconds."""

    code = "too_many_attempts"

    def __init__(self, retry_after: float, **facts: str | None) -> None:
        """`retry_after` is the time until the next attempt is allowed."""
        self.retry_after = max(1, math.ceil(retry_after))
        wait = _in_words(self.retry_after)
        super().__init__(f"Too many attempts. Please try again in {wait}.", **facts)


class LinkRequired(AuthError):
    """The address is an account's, for which the provider is not authoritative."""

    code = "link_required"
    sentence = (
        "An account with this email address exists already. "
        "Log in with its password first, then sign in with Google within ten minutes to connect "
        "the two."
    )


class EmailTaken(AuthError):
    """The email key belongs to another user."""

    code = "email_taken"
    sentence = "User already exists with this email"


class AccountInUse(AuthError):
    """Data of other applications refers to the account, so that the database keeps it."""

    code = "account_in_use"
    sentence = (
        "Your account cannot be deleted, because other data still belongs to it. "
        "Nothing was changed. Please contact support."
    )


class InvalidSource(AuthError):
    """A file or a body does not hold users; the sentence names the place."""

    code = "invalid_source"


class TransferRefused(AuthError):
    """An import, a rollback or an export did not happen."""

    code = "transfer_refused"


class RowsRejected(TransferRefused):
    """Some rows cannot be imported, and skipping them was not requested."""

    code = "rows_rejected"


class PlanOutdated(TransferRefused):
    """The source or the database has changed since the plan."""

    code = "plan_outdated"


class CommitUnknown(TransferRefused):
    """The connection was lost during the COMMIT, and its outcome is unknown."""

    code = "commit_unknown"


class AdminRequired(AuthError):
    """The administrator's credentials are missing or invalid."""

    code = "admin_required"
    sentence = "Administrator credentials are required"


class NotAdmin(AuthError):
    """The credentials are valid, but not an administrator's."""

    code = "not_admin"
    sentence = "These credentials are not an administrator's"


class InvalidIdentityToken(AuthError):
    """The ID token is not its issuer's, not for this service, or not valid now."""

    code = "invalid_identity_token"
    sentence = "Google authentication failed"


class InvalidMailToken(AuthError):
    """The token of a mail is used, has ended, is another's, or none of ours: one answer for all."""

    code = "invalid_mail_token"
    sentence = "This link is no longer valid. Please request a new one."


class ProofRequired(AuthError):
    """The link was opened where its account is not signed in, and its password is not given."""

    code = "password_required"
    sentence = "Please enter your password to confirm that the account is yours"


class SignInRequired(AuthError):
    """The link was opened where its account, which has no password, is not signed in."""

    code = "sign_in_required"
    sentence = "Please sign in here first, and then open the link again"


class MailNotConfigured(AuthError):
    """No mail can be sent from here."""

    code = "mail_not_configured"
    sentence = "This service does not send email. Please contact support."


class GoogleNotConfigured(AuthError):
    """Users cannot sign in with Google here, neither directly nor through Firebase."""

    code = "google_not_configured"
    sentence = (
        "Signing in with Google is not available here. Please use your email and password instead."
    )


class Unavailable(AuthError):
    """The request cannot be served now. `retry_after` is in seconds."""

    sentence = "The service is temporarily unavailable. Please try again in a moment."
    retry_after: ClassVar[int] = 5


class IdentityUnavailable(Unavailable):
    """The certificates for ID tokens cannot be fetched now."""

    code = "identity_unavailable"
    retry_after = 10


class Overloaded(Unavailable):
    """Too many callers are hashing passwords or waiting to."""

    code = "overloaded"
    retry_after = 1


class StoreUnavailable(Unavailable):
    """The store cannot answer now."""

    code = "store_unavailable"


class StoreUnreachable(StoreUnavailable):
    """Could not connect, or timed out: an outage, in which a fallback may serve."""


class StoreTimeout(StoreUnreachable):
    """The server itself cancelled a statement that took too long."""


class StoreBusy(StoreUnavailable):
    """Somebody else has what is needed, a connection, a lock or the user; try again at once."""

    code = "store_busy"
    retry_after = 1


class StoreRefused(StoreUnavailable):
    """TLS, authentication or schema: needs the operator; never retry."""


class StoreFault(Exception):
    """The database refused a statement: a constraint, a trigger, a type, or a bug of ours.

    Has the SQLSTATE and the objects that it is about, never a row.
    """

    def __init__(self, sqlstate: str, message: str, **objects: str) -> None:
        """`message` is the server's primary one; `objects` are names, by their kinds."""
        super().__init__(sqlstate, message)
        self.sqlstate, self.message, self.objects = sqlstate, message, objects

    @property
    def text(self) -> str:
        """The message, and the objects that it doesn't name itself."""
        unnamed = [
            f"{kind} {name}"
            for kind, name in self.objects.items()
            if f'"{name}"' not in self.message
        ]
        return f"{self.message} ({', '.join(unnamed)})" if unnamed else self.message

    @property
    def facts(self) -> dict[str, str]:
        """What a log line has of it beside the cause."""
        return {"sqlstate": self.sqlstate} | self.objects

    def __str__(self) -> str:
        return f"{self.sqlstate}: {self.text}"


class HttpError(Exception):
    """A call that fails at the edge, before any rule runs."""

    def __init__(
        self, status: int, code: str, sentence: str, headers: dict[str, str] | None = None
    ) -> None:
        """`sentence` is shown to the user."""
        self.status, self.code, self.sentence, self.headers = status, code, sentence, headers or {}
        super().__init__(sentence)
