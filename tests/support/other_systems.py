"""A file of each system that users come from, and what is to become of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from shared.transfer.adapters.person import UNPROVED_FIREBASE, UNPROVED_GOOGLE

PASSWORD = "correct horse 42"
KEY = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
"""An ENCRYPTION_KEY."""
SUBJECT = "108000000000000000001"
"""Whose Google account is the one in the files."""
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


class Later(NamedTuple):
    """What has changed in a system since its first export; one user, Eve, is new."""

    edits: Mapping[str, Sequence[tuple[str, str]]]
    """For each file: what stood there, and what does now."""
    changed: Sequence[str]
    files: Mapping[str, str] = {}
    """By option, what the first export lacked."""


_BCRYPT = "bcdefghijklmnopqrstuu2Bt20.pcFKeu5NhfnDPBMBPtmjLNaRm"
_OTHER = "bcdefghijklmnopqrstuu2Bt20.pcFKeu5NhfnDPBMBPtmjLNaRn"
_ID = "6f1d0c1e-0000-4000-8000-00000000000"
_EVE = '"email": "eve@example.com"'
LATER = {
    "firebase-users.json": Later({"firebase-users.json": [
        ("Ada Example", "Ada Lovelace"), ('"disabled": true', '"disabled": false'),
        ('"customAttributes": "{\\"role\\":\\"admin\\"}",', ""),
        ('"users": [', f'"users": [{{"localId": "e", {_EVE}}}, '),
    ]}, ["ada", "bob", "carol"]),
    "auth0-users.ndjson": Later({"auth0-users.ndjson": [
        ("Ada Example", "Ada Lovelace"), ('"name": "Bob"', '"name": "Bob", "blocked": true'),
        ("\n", f'\n{{"user_id": "auth0|e", {_EVE}, "email_verified": true}}\n'),
    ], "auth0-passwords.ndjson": [(_BCRYPT, _OTHER)]}, ["ada", "bob"]),
    "supabase-users.csv": Later({"supabase-users.csv": [
        (_BCRYPT, _OTHER), ("\n", f"\n,{_ID}3,,,eve@example.com{',' * 29}\n"),
    ]}, ["ada", "bob"],
        {"identities": f"id,user_id,provider,provider_id\n1,{_ID}2,google,{SUBJECT}\n"}),
    "django.json": Later({"django.json": [
        ("Example", "Lovelace"), ('"is_active": false', '"is_active": true'),
        ("[{", f'[{{"model": "auth.user", "pk": 3, "fields": {{{_EVE}}}}}, {{'),
    ]}, ["ada", "bob"]),
    "keycloak-realm.json": Later({"keycloak-realm.json": [
        ('"Example"', '"Lovelace"'), ('"enabled": false', '"enabled": true'),
        ('"users": [', f'"users": [{{"id": "{_ID}3", {_EVE}, "enabled": true}}, '),
    ]}, ["ada", "bob"]),
}  # fmt: skip
"""By the first export."""
