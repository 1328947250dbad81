"""A file of each system that users come from, and what is to become of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from shared.transfer.adapters.person import UNPROVED_FIREBASE, UNPROVED_GOOGLE

PASSWORD = "correct horse 42"
KEY = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
"""An ENCRYPTION_KEY."""
_FACTOR = "second factor left behind: Firebase does not export its secret"
_PHONE = "phone number left behind"


@dataclass(frozen=True)
class Case:
    """A file, and what is to become of it."""

    system: str
    file: str
    hashed: Sequence[str]
    """Who has a password's hash that can be verified."""
    others: Sequence[str] = ()
    google: Sequence[str] = ()
    disabled: Sequence[str] = ()
    unverified: Sequence[str] = ()
    secrets: Sequence[str] = ()
    """Who has the secret of a second factor."""
    claims: int = 0
    """How many have some."""
    left: Sequence[str] = ()
    """Reasons for what stays behind."""
    options: Sequence[str] = ()
    bcrypt: Sequence[str] = ()
    """Whose hash is one of ours already: a login changes it only where our cost is higher."""


CASES = [
    Case("firebase", "firebase-users.json", ["ada"], ["bob", "carol"], ["bob"], ["carol"],
         ["carol"], claims=1, left=[_FACTOR, _PHONE, UNPROVED_FIREBASE],
         options=["--hash-config", "firebase-hash-config.txt", "--project", "my-project"]),
    Case("auth0", "auth0-users.ndjson", ["ada"], ["bob"], ["bob"], claims=1, bcrypt=["ada"],
         options=["--passwords", "auth0-passwords.ndjson"]),
    Case("supabase", "supabase-users.csv", ["ada"], ["bob"], [], ["bob"],
         bcrypt=["ada"], left=["sign-in with google left behind: not in auth.identities"]),
    Case("clerk", "clerk.csv", ["ada", "cat"], ["bob"], secrets=["ada"], bcrypt=["ada"]),
    Case("better-auth", "better-auth.json", ["ada"], [], ["ada"], claims=1),
    Case("django", "django.json", ["ada"], ["bob"], ["bob"], ["bob"]),
    Case("keycloak", "keycloak-realm.json", ["ada", "bob"], [], [], ["bob"], ["bob"],
         ["ada"], claims=1, left=[UNPROVED_GOOGLE]),
    Case("cognito", "cognito.csv", [], ["ada"]),
    Case("cognito", "cognito.json", [], ["ada"]),
    Case("supertokens", "supertokens.json", ["ada"], bcrypt=["ada"], secrets=["ada"], claims=1),
    Case("wordpress", "wordpress.json", ["ada", "bob"], claims=1),
    Case("aspnet", "aspnet.csv", ["ada"]),
]  # fmt: skip
