"""A user of another system on the way to a row of a users file, and what stays behind.

A system's file calls these methods for what a row says; ids, identities and encrypted texts are
made here, for all systems alike. Nothing is random and nothing is of the clock: the same file gives
the same rows in every run.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from shared.formats.foreign_hashes import UnusableHash
from shared.model.emails import email_key
from shared.model.user_record import TEXT_MAX_LENGTH, InvalidRow, claims_text, derived_id
from shared.model.users import GOOGLE_ISSUER, UUID
from shared.transfer.adapters.hashes import Hashes
from shared.transfer.adapters.values import seconds

if TYPE_CHECKING:
    from shared.credentials.encryption import Encryption

MAX_REASONS, MAX_EXAMPLES, MAX_SHOWN_LENGTH = 50, 3, 240
MORE = "more reasons than can be counted"
NO_KEY = "TOTP secret left behind: ENCRYPTION_KEY is not set"
HASH_LEFT_BEHIND = "password hash left behind"
SECOND_ADDRESS = "second address dropped"
UNPROVED_GOOGLE = "Google's identity left behind: the address is not proved"
UNPROVED_FIREBASE = "Firebase's identity left behind: the address is not proved"
EPOCH = "1970-01-01T00:00:00.000Z"
"""In the place of a time that a source does not tell and that something must have."""
_ID_NAMESPACE = uuid.UUID("f9f7c9c0-2f0c-5f6f-8a55-7d3b7c9d1e02")
_CONFIDENTIAL = re.compile(r"\S*@\S*|\S{33,}")
"""What may be one, where somebody's columns are mixed up."""
_BASE32 = re.compile(r"[A-Z2-7]{16,128}")
_LANGUAGE = re.compile(r"[A-Za-z]{2,3}([_-][A-Za-z0-9]{1,8}){0,3}")


class StaysBehind(Exception):
    """The row is no user who could come along; the message is the reason, in some words."""


class LeftBehind:
    """Why something stays behind: in how many rows, and the first few of them."""

    def __init__(self) -> None:
        """Begin without a reason."""
        self.reasons: dict[str, dict[str, Any]] = {}

    def note(self, reason: str, row: int) -> None:
        """Count a row. What the reason quotes of it is no address, hash or secret."""
        reason = _CONFIDENTIAL.sub("…", reason)
        if reason not in self.reasons and len(self.reasons) >= MAX_REASONS:
            reason = MORE
        found = self.reasons.setdefault(reason, {"rows": 0, "examples": []})
        found["rows"] += 1
        if len(found["examples"]) < MAX_EXAMPLES:
            found["examples"].append(row)


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What is the same for all rows of a source."""

    issuer: str
    """Of the old ids. No ID token has it, but where it is that of Firebase's project."""
    hashes: Hashes
    encryption: Encryption | None
    as_of: float
    """When the file was written: a ban that ended before it is none."""
    left: LeftBehind = field(default_factory=LeftBehind)


class Person:
    """One user in the making."""

    def __init__(self, around: Surroundings, number: int) -> None:
        """Know nothing yet. `number` is the row's."""
        self._around = around
        self._number = number
        self._reasons: dict[str, None] = {}
        self._id: str | None = None
        self._password: str | None = None
        self._identities: list[tuple[str, str]] = []
        self._secret: str | None = None
        self._verified: bool | None = None
        self._verified_at: str | int | None = None
        self._is_disabled = False
        self._disabled_at: str | int | None = None
        self.email: str | None = None
        self.name: str | None = None
        self.created: str | int | None = None
        self.updated: str | int | None = None
        self.locale: str | None = None
        self.claims: dict[str, Any] = {}

    def leave(self, reason: str) -> None:
        """Note something of this user that stays behind."""
        self._reasons[reason] = None

    def tell(self) -> None:
        """Count what was noted, once the user comes along."""
        for reason in self._reasons:
            self._around.left.note(reason, self._number)

    def had_id(self, old_id: str | None, *, is_chosen: bool = False) -> None:
        """Take the id in the old system: the user's own where it is a UUID, else an identity.

        One that is chosen, as a user name is, could be the UUID of somebody else.
        """
        if old_id is None:
            return
        if UUID.fullmatch(old_id.lower()) and not is_chosen:
            self._id = old_id.lower()
            return
        self._id = str(uuid.uuid5(_ID_NAMESPACE, f"{self._around.issuer}\n{old_id}"))
        self._identities.append((self._around.issuer, old_id))

    def had_password(self, stored: str | None, *, scheme: str | None = None) -> None:
        """Take a stored hash, in the form of its maker."""
        if stored is not None:
            self.had_hash(lambda hashes: hashes.recognise(stored, scheme))

    def had_hash(self, make: Callable[[Hashes], str]) -> None:
        """Take the text that `make` gives of a stored hash, unless it raises UnusableHash."""
        try:
            self._password = make(self._around.hashes)
        except UnusableHash as error:
            self.leave(f"{HASH_LEFT_BEHIND}: {_shortened(str(error))}")

    def is_verified(self, verified: bool | None, at: str | int | None = None) -> None:
        """Take whether the address is proved, and since when; None where nobody knows."""
        self._verified, self._verified_at = verified, at

    def is_disabled(self, disabled: bool | None, at: str | int | None = None) -> None:
        """Take whether the old system lets the user in no more, and since when."""
        self._is_disabled = self._is_disabled or bool(disabled)
        self._disabled_at = self._disabled_at or at

    def is_banned_until(self, end: str | int | None) -> None:
        """Take the end of a ban; what is no time, such as `infinity`, never ends."""
        if end is None:
            return
        moment = seconds(end)
        self.is_disabled(moment is None or moment > self._around.as_of)

    def has_google(self, subject: str | None) -> None:
        """Take Google's subject, which Google itself must have told the old system."""
        if subject is not None:
            self._identities.append((GOOGLE_ISSUER, subject))

    def has_provider(self, name: str) -> None:
        """Count a provider that nobody can sign in with here."""
        self.leave(f"sign-in with {_shortened(name)} left behind")

    def has_totp(
        self, secret: str | None, *, digits: Any = 6, period: Any = 30, algorithm: str = "SHA1"
    ) -> None:
        """Take the secret of an authenticator app, in base32."""
        if secret is None:
            return
        text = re.sub(r"[\s=-]", "", secret).upper()
        is_usual = algorithm.upper().removeprefix("HMAC").replace("-", "") == "SHA1"
        if self._secret is not None:
            self.leave("second TOTP secret left behind")
        elif not _BASE32.fullmatch(text):
            self.leave("TOTP secret left behind: it is not base32 of 16 to 128 characters")
        elif not is_usual or str(digits) != "6" or str(period) != "30":
            self.leave("TOTP secret left behind: its codes are not six digits, SHA-1, each 30 s")
        elif self._around.encryption is None:
            self.leave(NO_KEY)
        else:
            self._secret = text

    def speaks(self, language: str | None) -> None:
        """Take the language."""
        if language is not None and _LANGUAGE.fullmatch(language):
            self.locale = language.replace("_", "-")

    def drop_addresses(self, addresses: Sequence[str | None]) -> None:
        """Count once whoever has an address beside the user's own."""
        own = email_key(self.email or "")
        if any(address is not None and email_key(address) != own for address in addresses):
            self.leave(SECOND_ADDRESS)

    def row(self) -> dict[str, Any]:
        """Give the row of a users file. Raises StaysBehind where there is no address."""
        if self.email is None:
            raise StaysBehind("no address")
        if not self._verified:
            self._leave_ways_in()
        pairs = dict.fromkeys(self._identities)
        row = {
            "id": self._id,
            "email": self.email,
            "password": self._password,
            "provider": self._provider(),
            "name": self._name(),
            "createdAt": self.created,
            "updatedAt": self.updated,
            "identities": [{"issuer": issuer, "subject": it} for issuer, it in pairs] or None,
            "locale": self.locale,
            "claims": self._claims(),
            "totpSecret": self._totp_secret(self.email),
        }
        row |= self._states()
        return {name: value for name, value in row.items() if value is not None}

    def _leave_ways_in(self) -> None:
        """Leave the identities behind that somebody could sign in with.

        Whoever signed up with the address of another would keep them when its owner proves it.
        """
        reasons = {GOOGLE_ISSUER: UNPROVED_GOOGLE}
        if self._is_firebases:
            reasons[self._around.issuer] = UNPROVED_FIREBASE
        for issuer, _ in self._identities:
            if issuer in reasons:
                self.leave(reasons[issuer])
        self._identities = [it for it in self._identities if it[0] not in reasons]

    @property
    def _is_firebases(self) -> bool:
        """Tell whether the old ids are those of Firebase's own tokens."""
        return self._around.issuer.startswith("https:")

    @property
    def _is_googles(self) -> bool:
        return any(issuer == GOOGLE_ISSUER for issuer, _ in self._identities)

    def _provider(self) -> str:
        if self._password is not None or not self._is_googles:
            return "local"
        return "firebase-google" if self._is_firebases else "google"

    def _name(self) -> str | None:
        if self.name is None or self.name == self.email:
            return None
        if len(self.name) > TEXT_MAX_LENGTH:
            self.leave(f"name cut to {TEXT_MAX_LENGTH} characters")
        return self.name[:TEXT_MAX_LENGTH]

    def _states(self) -> dict[str, str | int]:
        since = next((it for it in (self.created, self.updated) if _is_time(it)), None) or EPOCH
        states = {}
        if self._verified:
            states["emailVerifiedAt"] = self._verified_at or since
        elif self._verified is False or (self._password is None and not self._is_googles):
            states["unverifiedSince"] = since
        if self._is_disabled:
            updated = self.updated if _is_time(self.updated) else None
            states["disabledAt"] = self._disabled_at or updated or since
        return states

    def _claims(self) -> dict[str, Any] | None:
        claims = {name: value for name, value in self.claims.items() if value not in (None, [], {})}
        try:
            claims_text(claims)
        except InvalidRow as problem:
            self.leave(f"claims left behind: {problem}")
            return None
        return claims or None

    def _totp_secret(self, email: str) -> str | None:
        if self._secret is None or self._around.encryption is None:
            return None
        owner = self._id or derived_id(email_key(email))
        return self._around.encryption.encrypt(self._secret, owner)


def _is_time(value: str | int | None) -> bool:
    """Tell whether it can be read as one. What cannot is refused by its own name."""
    return value is not None and seconds(value) is not None


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_SHOWN_LENGTH else f"{text[:MAX_SHOWN_LENGTH]}…"
