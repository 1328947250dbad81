"""Signing in by a provider's word, and whose account that opens: the linking table.

An identity is known by its issuer and subject, never by its address (ASVS V6.8.1). The address
only finds an account that the identity might be joined to; who may join them is decided by
`_is_proven` and `_check_merge`, and `docs/SECURITY.md` has the same as a table. Knows neither HTTP
nor SQL.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from shared.credentials.session_tokens import Session
from shared.errors import EmailTaken, LinkRequired
from shared.model.emails import email_key
from shared.model.users import User
from shared.store.contract import Credentials, ExternalMatch, Store

if TYPE_CHECKING:
    from shared.credentials.id_tokens import Identity
    from shared.model.clients import Client

ATTEMPTS = 3
"""Of a sign-in, while others change the same account; each sees what the one before lost to."""


def sign_in(
    store: Store, identity: Identity, session: Session | None, *, client: Client
) -> tuple[User, str]:
    """Give the user whom a verified identity is, and the event: a signup, login, identity_linked.

    `session` is that of whoever asks, if there is one. Anybody may have put it into their browser,
    so that it proves the account's other side only as `_is_proven` says.
    Raises LinkRequired and EmailTaken where the address is an account's that is not to be joined,
    InvalidIdentityToken where the token has been used too often, and TooManyAttempts where the
    user has signed in or the client's network has signed up too often.
    """
    identities = identity.identities
    key = email_key(identity.email)
    for _ in range(ATTEMPTS):
        match = store.find_external(identities, key, identity.token, client)
        if match is None:
            user = User(str(uuid.uuid4()), key, identity.name, identity.provider)
            reservation = store.reserve_sign_up(client, identities)
            try:
                created = store.create_user(
                    user, None, identities, client=client, reservation=reservation
                )
                return created, "signup"
            except EmailTaken:
                continue
        found = match.credentials
        if match.is_linked and match.has_all:
            return found.user, "login"
        if match.has_all:
            raise EmailTaken(cause="the account has as many identities as one may have")
        drops_password = not match.is_linked and not _is_proven(store, session, found, match.at)
        if drops_password:
            _check_merge(match, identity)
        linked = store.link(
            found,
            identities,
            provider=identity.provider if drops_password else found.user.provider,
            drops_password=drops_password,
            client=client,
        )
        if linked is not None:
            return linked, "identity_linked"
    raise EmailTaken


def _is_proven(store: Store, session: Session | None, found: Credentials, at: float) -> bool:
    """Tell whether whoever asks has just logged in with the account's password.

    It is to be in this very session, within ten minutes, and the session goes on. Any other one
    proves nothing: not the old server's, not Google's, and not that of a sign-up, which chose the
    password and never had to know it.
    """
    user = found.user
    return (
        session is not None
        and found.password_hash is not None
        and session.has_just_proven("password", at)
        and (session.user.id, session.user.epoch) == (user.id, user.epoch)
        and store.user(user.id, sid=session.sid) is not None
    )


def _check_merge(match: ExternalMatch, identity: Identity) -> None:
    """Let the provider's word alone join the account, if it may.

    It may where it speaks for the address, and for a user whom the old server had from Google:
    there was no subject then, and any token was let in. Either way what was there before, password
    and sessions, ends, whatever session is asking.
    """
    found = match.credentials
    if match.has_identities:
        raise EmailTaken(cause="another identity of the provider's has this address")
    if found.password_hash is None and found.user.provider in ("google", "firebase-google"):
        return
    if identity.is_authoritative:
        return
    if found.password_hash is None:
        raise EmailTaken(cause="the account has no password to prove")
    raise LinkRequired
