"""Keycloak: `kc.sh export` of a realm with its users."""

from __future__ import annotations

from shared.formats.foreign_hashes import UNKNOWN, UnusableHash, base64_bytes
from shared.formats.hash_recognition import argon2id, pbkdf2
from shared.transfer.adapters.adapter import Adapter, Found
from shared.transfer.adapters.person import Person, StaysBehind
from shared.transfer.adapters.values import (
    Row,
    flag,
    full_name,
    members,
    moment,
    objects,
    text,
    texts,
)

_ARGON2_VERSION, _ARGON2_TYPE = "1.3", "id"


def _adapt(row: Row, person: Person, _: Found) -> None:
    if text(row, "serviceAccountClientId"):
        raise StaysBehind("service account")
    person.had_id(text(row, "id"))
    person.email = text(row, "email")
    person.name = full_name(row, "firstName", "lastName")
    person.created = moment(row, "createdTimestamp")
    person.is_verified(bool(flag(row, "emailVerified")))
    person.is_disabled(flag(row, "enabled") is False)
    for credential in objects(row, "credentials"):
        _take(credential, person)
    for identity in objects(row, "federatedIdentities"):
        provider = text(identity, "identityProvider")
        if provider == "google":
            person.has_google(text(identity, "userId"))
        elif provider is not None:
            person.has_provider(provider)
    attributes = members(row, "attributes")
    person.speaks(next(iter(texts(attributes, "locale")), None))
    if set(attributes).difference({"locale"}):
        person.leave("attributes left behind")
    if row.get("requiredActions"):
        person.leave("required actions left behind")
    person.claims = {
        "roles": texts(row, "realmRoles"),
        "groups": texts(row, "groups"),
        "clientRoles": members(row, "clientRoles"),
    }


def _take(credential: Row, person: Person) -> None:
    kind = text(credential, "type")
    secret, data = members(credential, "secretData"), members(credential, "credentialData")
    if kind == "password":
        person.had_hash(lambda _: _hash(secret, data))
    elif kind == "otp":
        if text(data, "secretEncoding") == "BASE32" and text(data, "subType") == "totp":
            person.has_totp(
                text(secret, "value"),
                digits=data.get("digits"),
                period=data.get("period"),
                algorithm=text(data, "algorithm") or "",
            )
        else:
            person.leave("TOTP secret left behind: it is not in base32, or counts")
    elif kind is not None:
        person.leave(f"{kind[:40]} left behind")


def _hash(secret: Row, data: Row) -> str:
    value, salt = text(secret, "value"), text(secret, "salt")
    if value is None or salt is None:
        raise UnusableHash(UNKNOWN)
    key, salted = base64_bytes(value), base64_bytes(salt)
    algorithm, more = text(data, "algorithm"), members(data, "additionalParameters")
    iterations = _number(data.get("hashIterations"))
    if algorithm == "argon2":
        if (_only(more, "type"), _only(more, "version")) != (_ARGON2_TYPE, _ARGON2_VERSION):
            raise UnusableHash("The password's hash is argon2, but not argon2id, version 1.3.")
        return argon2id(
            memory=_number(_only(more, "memory")),
            passes=iterations,
            lanes=_number(_only(more, "parallelism")),
            salt=salted,
            key=key,
        )
    if algorithm == "pbkdf2":
        return pbkdf2("sha1", iterations, salted, key)
    if algorithm == "pbkdf2-sha256":
        return pbkdf2("sha256", iterations, salted, key)
    if algorithm == "pbkdf2-sha512":
        return pbkdf2("sha512", iterations, salted, key)
    raise UnusableHash(UNKNOWN)


def _only(parameters: Row, name: str) -> object:
    """Give the only value of a parameter, which is a list."""
    value = parameters.get(name)
    return value[0] if isinstance(value, list) and value else value


def _number(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 12:
        return int(value)
    raise UnusableHash("A parameter of the password's hash is not a number.")


ADAPTER = Adapter(
    "keycloak",
    "Keycloak",
    _adapt,
    marks=(
        frozenset({"username", "createdTimestamp"}),
        frozenset({"username", "credentials"}),
        frozenset({"username", "federatedIdentities"}),
    ),
)
