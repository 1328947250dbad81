"""The hashes of a source: `shared.formats` knows their forms, and this what they lack."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from shared.errors import InvalidSource
from shared.formats import hash_recognition
from shared.formats.foreign_hashes import UnusableHash
from shared.formats.hash_recognition import SCHEMES, Scheme

NO_CONFIG = "--hash-config is not given"
_CONFIG_MAX_BYTES = 16 * 1024
_MEMBER = re.compile(r"([a-z_0-9]+)\s*[:=]\s*\"?([^\s,\"}]+)\"?")


@dataclass(frozen=True, slots=True)
class FirebaseConfig:
    """The hash parameters of a Firebase project."""

    signer_key: str = field(repr=False)
    separator: str = field(repr=False)
    rounds: int
    mem_cost: int

    @classmethod
    def read(cls, path: Path) -> FirebaseConfig:
        """Read the parameters as the Firebase console shows them. Raises InvalidSource."""
        try:
            with path.open("rb") as file:
                text = file.read(_CONFIG_MAX_BYTES).decode()
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidSource(f"{path} cannot be read: {error}.") from error
        found = dict(_MEMBER.findall(text))
        if found.get("algorithm", "SCRYPT") != "SCRYPT":
            raise InvalidSource(f"{path} names another algorithm than SCRYPT, Firebase's own.")
        try:
            return cls(
                found["base64_signer_key"],
                found["base64_salt_separator"],
                int(found["rounds"]),
                int(found["mem_cost"]),
            )
        except (KeyError, ValueError):
            raise InvalidSource(
                f"{path} is not Firebase's hash parameters: base64_signer_key, "
                "base64_salt_separator, rounds and mem_cost, as the console shows them under "
                "Authentication, Users, ⋮, Password hash parameters."
            ) from None


@dataclass(slots=True, kw_only=True)
class Hashes:
    """What the hashes of a source lack, and whether any of them did."""

    scheme: Scheme | None = None
    """The operator's word, where the text does not tell."""
    key: str | None = field(default=None, repr=False)
    config: FirebaseConfig | None = None
    peppers: Collection[str] = field(default=(), repr=False)
    """Those of PASSWORD_PEPPERS."""
    _lacked_key: bool = field(default=False, init=False)

    def unneeded(self) -> str | None:
        """Say in a sentence that a key was given, and none of the hashes was made with one."""
        if self._lacked_key or not (self.key or self.config):
            return None
        option = "--pepper-env" if self.key else "--hash-config"
        return (
            f"No hash in the file needs the key of {option}: is it the file that the key belongs "
            "to, and of the system that is named?"
        )

    def recognise(self, text: str, scheme: str | None = None) -> str:
        """Give the text that is stored for one of another system's. Raises UnusableHash."""
        known = self.scheme or next((it for it in SCHEMES if it == scheme), None)
        key = self.key or (self.config.signer_key if self.config else None)
        self._lacked_key = self._lacked_key or hash_recognition.lacks_key(text, known)
        return hash_recognition.recognise(text, known, key=key, peppers=self.peppers)

    def firebase(self, hash_: str, salt: str) -> str:
        """Give the text of a hash of Firebase's. Raises UnusableHash."""
        if self.config is None:
            raise UnusableHash(NO_CONFIG)
        self._lacked_key = True
        return hash_recognition.firebase(
            hash_.replace("-", "+").replace("_", "/"),
            salt.replace("-", "+").replace("_", "/"),
            self.config.separator,
            rounds=self.config.rounds,
            mem_cost=self.config.mem_cost,
            signer_key=self.config.signer_key,
            peppers=self.peppers,
        )
