"""What somebody may do who reads the mailbox of an account. Knows neither HTTP nor SQL.

Who clicks a link has the mailbox, not the account. Nobody who asks for a mail learns whether there
is an account: the store counts, writes and answers alike in every case.
"""

from __future__ import annotations

from shared.credentials.mail_tokens import MailToken, MailTokens
from shared.credentials.passwords import PasswordHasher
from shared.errors import (
    InvalidInput,
    InvalidMailToken,
    NotAuthenticated,
    ProofRequired,
    ReauthenticationRequired,
    SignInRequired,
    StoreBusy,
)
from shared.model.clients import Client
from shared.model.emails import email_key, parse_new_email
from shared.model.mails import AskedKind
from shared.model.sessions import Session
from shared.model.users import User
from shared.rules.accounts import Accounts
from shared.rules.gate import Gate
from shared.store.contract import Attempt, Users
from shared.store.contract import Mailboxes as MailboxStore

_MAX_ADDRESS = 320
"""Characters: what no address is longer than (RFC 5321, section 4.5.3.1)."""


_CHANGED = "the user has changed since, or is gone"


def is_of(session: Session, user_id: str, epoch: int) -> bool:
    """Tell whether a session is the user's, and not ended by what has raised the epoch since."""
    return (session.user.id, session.user.epoch) == (user_id, epoch)


class Mailboxes:
    """Asks for mails, and does what their links say. Thread-safe."""

    def __init__(
        self,
        store: MailboxStore,
        users: Users,
        accounts: Accounts,
        tokens: MailTokens,
        hasher: PasswordHasher,
        gate: Gate,
    ) -> None:
        """Ask and change nothing yet."""
        self._store = store
        self._users = users
        self._accounts = accounts
        self._tokens = tokens
        self._hasher = hasher
        self._gate = gate

    def ask(self, kind: AskedKind, *, email: str, locale: str | None, client: Client) -> None:
        """Have a mail sent to the address, if it is somebody's to whom it can be.

        Raises InvalidInput for what is no address at all, and TooManyAttempts for too many of the
        client's network.
        """
        if "@" not in email or len(email) > _MAX_ADDRESS:
            raise InvalidInput("email", "Please enter a valid email address")
        self._store.ask_for_mail(kind, email_key(email), locale=locale, client=client)

    def reset_password(self, token: str, *, new: str, client: Client, now: float) -> User:
        """Set a password by a link, of a reset or of an invitation; all sessions end.

        The address is proved with it.

        Raises InvalidMailToken, InvalidInput, TooManyAttempts and Overloaded.
        """
        proof = self._tokens.read(token, "password_reset", "invitation", now=now)
        found = self._users.user(proof.user_id)
        # Before it costs a hash; see `Mailboxes.reset_password` of the store for the unproved.
        if found is None or (found.epoch != proof.epoch and found.email_verified is not False):
            raise InvalidMailToken(cause=_CHANGED)
        self._accounts.check_new_password(
            new, field="newPassword", email=proof.email, name=found.name
        )
        with self._gate.attempt(client, "password_reset"):
            user = self._store.reset_password(proof, self._hasher.hash(new), client)
        if user is None:
            raise InvalidMailToken(cause=_CHANGED)
        return user

    def request_email_change(
        self, session: Session, *, email: str, password: str | None, client: Client
    ) -> None:
        """Have a link sent to a new address. Nobody learns whether somebody has it already.

        Raises InvalidInput and the errors of `Accounts.prove_again`.
        """
        key = parse_new_email(email, field="newEmail")
        if key == email_key(session.user.email):
            raise InvalidInput("newEmail", "This is already your address")
        with self._gate.attempt(client, "reauthentication"):
            attempt, found = self._accounts.prove_again(session, "password", password, client)
            done = self._store.request_email_change(attempt, found, key)
        if not done:
            raise StoreBusy(cause="the user has changed meanwhile")

    def use_link(
        self,
        token: str,
        *,
        session: Session | None,
        password: str | None,
        client: Client,
        now: float,
    ) -> tuple[User, str, bool]:
        """Prove an address, or change it, by a link; give the user, the event, and what goes on.

        That is whether the session does, as no other one where the address has changed.

        Whoever opens the link reads the mailbox; that the account is theirs, too, is shown by its
        session or its password. A stranger who signed up with somebody's address must not be
        handed its owner's word. Raises InvalidMailToken, ProofRequired, SignInRequired, EmailTaken
        and WrongPassword.
        """
        proof = self._tokens.read(token, "verification", "email_change", now=now)
        use = self._store.verify_email
        event = "email_verified"
        if proof.purpose == "email_change":
            use, event = self._store.change_email, "email_changed"
        goes_on = session is not None and is_of(session, proof.user_id, proof.epoch)
        if session is not None and goes_on:
            user = use(proof, sid=session.sid, client=client)
        else:
            with self._gate.attempt(client, "reauthentication"):
                attempt = self._prove_account(proof, password, client)
                user = use(proof, sid="", client=client, attempt=attempt)
        if user is None:
            raise InvalidMailToken(cause=_CHANGED)
        return user, event, goes_on

    def log_in(self, token: str, *, client: Client, now: float) -> User:
        """Sign in by a link. Raises InvalidMailToken and TooManyAttempts."""
        user = self._store.log_in(self._tokens.read(token, "login_link", now=now), client)
        if user is None:
            raise InvalidMailToken(cause="it is used, or the user has changed since, or is gone")
        return user

    def _prove_account(self, proof: MailToken, password: str | None, client: Client) -> Attempt:
        """Verify the password of a token's user. The attempt is counted."""
        if password is None:
            raise ProofRequired
        user = self._users.user(proof.user_id)
        if user is None or user.epoch != proof.epoch:
            raise InvalidMailToken(cause=_CHANGED)
        try:
            return self._accounts.prove_again(Session.of(user), "password", password, client)[0]
        except ReauthenticationRequired as error:  # Without a password only a session is a proof.
            raise SignInRequired(event="reauthentication_failed") from error
        except NotAuthenticated as error:
            raise InvalidMailToken(cause=_CHANGED) from error
