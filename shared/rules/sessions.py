"""The rules of sessions: reading, renewing, ending. Knows neither HTTP nor SQL."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

from shared.credentials import express_sessions
from shared.credentials.session_tokens import IssuedToken, SessionTokens
from shared.credentials.signing import InvalidToken
from shared.errors import NotAuthenticated, StoreFault, StoreUnavailable
from shared.model.clients import Client
from shared.model.sessions import SESSION_SECONDS, Session
from shared.model.users import User
from shared.observe import log
from shared.store.contract import Account, Store


class Sessions:
    """Reads, renews and ends sessions. Thread-safe."""

    def __init__(
        self,
        store: Callable[[], Store],
        tokens: SessionTokens,
        is_listed: Callable[[Session], bool] | None = None,
    ) -> None:
        """`store` is called only when the token alone is not enough.

        That is also where `is_listed` tells that a session may just have been revoked.
        """
        self._store = store
        self._tokens = tokens
        self._is_listed = is_listed

    def read(self, token: str | None, now: float) -> Session:
        """Verify a token without the store. Raises NotAuthenticated.

        It also refuses a degraded session, which only shows who is signed in, because the data at
        its login may have been out of date.
        """
        session = self._read(token, now)
        if session.user.is_degraded:
            raise NotAuthenticated(cause="the session is degraded")
        return session

    def _read(self, token: str | None, now: float) -> Session:
        if token is None:
            raise NotAuthenticated
        try:
            return self._tokens.read(token, now)
        except InvalidToken as error:
            raise NotAuthenticated(cause=str(error)) from error

    def choose(self, tokens: Sequence[str], now: float) -> str | None:
        """Give the token that proves a session, where several cookies have its name.

        Others are ignored, such as a leftover of another domain. Where they prove sessions of
        several users, none is given: a sibling domain's page can plant its own, and nothing shows
        which came from us (RFC 6265, section 4.2.2). Of one user's, the latest counts.
        """
        found = []
        for token in tokens:
            with suppress(InvalidToken):
                found.append((self._tokens.read(token, now), token))
        if len({session.user.id for session, _ in found}) != 1:
            return None
        return max(found, key=lambda pair: pair[0].issued_at)[1]

    def current_user(
        self, token: str | None, now: float, *, express_sid: str | None = None
    ) -> tuple[User, IssuedToken | None]:
        """Give the session's user and, if the session is renewed or exchanged, its new token.

        The signature alone proves a fresh session, unless it is listed. A stale or a listed one
        costs one query, and so does exchanging the old server's session `express_sid`, which has no
        token yet. Raises NotAuthenticated, and StoreUnavailable if a session cannot be looked up.
        """
        if token is None:
            if express_sid is None:
                raise NotAuthenticated
            old = self._store().express_sessions
            sid = express_sessions.exchanged_sid(express_sid)
            user = old.user(express_sid, exchanged=sid) if old else None
            # The old server has no epochs: ending all sessions here must end its sessions, too.
            if user is None or user.epoch > 0:
                raise NotAuthenticated
            return user, self._tokens.issue(user, now, method="express", sid=sid)
        session = self._read(token, now)
        if session.is_fresh(now):
            if self._is_listed is not None and self._is_listed(session):
                self._check_listed(session)
            return session.user, None
        user = self._store().user(session.user.id, sid=session.sid)
        if user is None or user.epoch != session.user.epoch:
            raise NotAuthenticated(cause="the user is gone or ended this session")
        return user, self._tokens.issue(user, now, renews=session)

    def _check_listed(self, session: Session) -> None:
        """Raise NotAuthenticated where the store, which decides, knows that it was revoked.

        While the store is away the signature is enough, as it is without a list. It is not renewed:
        a degraded session must stay one.
        """
        try:
            user = self._store().user(session.user.id, sid=session.sid)
        except (StoreUnavailable, StoreFault) as error:
            log.write("WARNING", "A session on the list was not looked up", cause=str(error))
            return
        if user is None or user.epoch != session.user.epoch:
            raise NotAuthenticated(cause="the session was revoked")

    def account(self, session: Session) -> Account:
        """Give all data stored about the session's user. Raises NotAuthenticated."""
        account = self._store().account(session.user.id, sid=session.sid)
        if account is None or account.user.epoch != session.user.epoch:
            raise NotAuthenticated(cause="the user is gone or ended this session")
        return account

    def to_end(self, token: str | None) -> Session | None:
        """Give the session of a token that is to be ended, or None.

        Also one that has ended by the clock here: another instance's may differ.
        """
        if token is None:
            return None
        try:
            session = self._tokens.verify(token)
        except InvalidToken:
            return None
        if session.auth_method == "express":
            # Other exchanges of the same session may have begun until now, and would outlive it.
            # They began before it ends, so that none goes on for longer, whatever the clock here
            # says.
            session = session._replace(ends_at=session.ends_at + SESSION_SECONDS)
        return session

    def log_out(
        self, tokens: Sequence[str], express_sids: Sequence[str], *, client: Client
    ) -> bool:
        """End the session of each token, and the old server's; tell whether all could be read.

        Also ends a session that has ended by the local clock: by another instance's it may not
        have. Raises StoreUnavailable if a session could not be ended.
        """
        self._delete_express(express_sids)
        sessions = [self.to_end(token) for token in tokens]
        for session in {session.sid: session for session in sessions if session}.values():
            self._store().revoke_session(session, client)
        return None not in sessions

    def log_out_everywhere(
        self, session: Session, express_sids: Sequence[str], *, client: Client
    ) -> None:
        """End all sessions of the session's user, and the browser's own on the old server.

        The others there are no longer exchanged for ours. Raises NotAuthenticated for a session
        that has ended itself.
        """
        if not self._store().revoke_all_sessions(session, client):
            raise NotAuthenticated(cause="the user is gone or ended this session")
        self._delete_express(express_sids)

    def _delete_express(self, sids: Sequence[str]) -> None:
        if sids and (old := self._store().express_sessions):
            for sid in sids:
                old.delete(sid)
