"""Sign-in with an external identity, and the rules for linking it to an account.

An identity is its issuer and subject, never its address (ASVS V6.8.1). The address only finds an
account to which the identity might be linked; `_is_proven` and `_check_merge` decide.
`docs/SECURITY.md` has the rules as a table. Knows neither HTTP nor SQL.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Protocol

from shared.errors import EmailTaken, LinkRequired, StoreBusy
from shared.model.clients import Client
from shared.model.emails import email_key
from shared.model.sessions import Session
from shared.model.users import User
from shared.store.contract import Credentials, ExternalMatch, Identities, Users

if TYPE_CHECKING:
    from shared.credentials.id_tokens import Identity

ATTEMPTS = 3
"""Of a sign-in while others change the account; each attempt sees the previous change."""


class _Store(Users, Identities, Protocol):
    """The part of a store that these rules need."""


def sign_in(
    store: _Store,
    identity: Identity,
    session: Session | None,
    *,
    client: Client,
    locale: str | None = None,
) -> tuple[User, str, bool]:
    """Give the user of a verified identity, and the event: signup, login or identity_linked.

    Tell as well whether there may be a mail of it now.

    `locale` is the language of a new user's mails. `session` is the caller's, if any. An attacker
    may have planted it in the browser, so it counts as a proof only under the conditions of
    `_is_proven`.
    Raises LinkRequired and EmailTaken if an account has the address and may not be linked,
    InvalidIdentityToken if the token was used too often, TooManyAttempts for too many sign-ins
    of the user or sign-ups from the client's network, and StoreBusy if others always were faster.
    """
    identities = identity.identities
    key = email_key(identity.email)
    taken: EmailTaken | None = None
    for _ in range(ATTEMPTS):
        match = store.find_external(identities, key, identity.token, client)
        if match is None:
            user = User(str(uuid.uuid4()), key, identity.name, identity.provider)
            reservation = store.reserve_sign_up(client, identities)
            try:
                created = store.create_user(
                    user,
                    None,
                    identities,
                    client=client,
                    reservation=reservation,
                    verification="proved",
                    locale=locale,
                )
                return created, "signup", False
            except EmailTaken as error:
                taken = error
                continue
        found = match.credentials
        if match.is_linked and match.has_all:
            return found.user, "login", match.is_told
        if match.has_all:
            raise EmailTaken(cause="the account has the maximum number of identities")
        drops_password = not match.is_linked and not _is_proven(store, session, found, match.at)
        if drops_password:
            _check_merge(match, identity)
        linked = store.link(
            found,
            identities,
            provider=identity.provider if drops_password else found.user.provider,
            drops_password=drops_password,
            client=client,
            # The provider has proved it, where that is the account's own.
            proves_address=key == email_key(found.user.email),
        )
        if linked is not None:
            return linked, "identity_linked", True
        taken = None
    raise taken or StoreBusy(cause="the user changed in every attempt to link an identity")


def _is_proven(store: _Store, session: Session | None, found: Credentials, at: float) -> bool:
    """Tell whether the caller has just logged in with the account's password.

    That must have been in this session, within ten minutes, and the session must be valid. Other
    sessions prove nothing: neither the old server's, nor Google's, nor that of a sign-up, which
    chose the password without proving it.
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
    """Raise EmailTaken or LinkRequired unless the identity alone is enough to link.

    It is enough if the provider is authoritative for the address, and for Google users of the old
    server, which stored no subject and accepted any token. In both cases the existing password and
    all sessions end, whatever the caller's session.
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
