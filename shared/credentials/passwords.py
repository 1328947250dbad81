"""Hashes and verifies passwords in the current format and the old server's.

A new password is normalised (NFC) and hashed with bcrypt, which reads 72 bytes. One of 72 or more
bytes goes through HMAC-SHA256 first and is stored in the format of passlib's `bcrypt_sha256`,
version 2, so that no byte is ignored. The old server hashed the first 72 bytes as typed.

A hash that came from another system is verified as its maker does it, until the first login
replaces it by one of ours.

Hashes dominate the load. The number computed at once is limited here, and so is the memory that
they need together; the number of callers in `shared.rules.bulkhead`.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import bcrypt

from shared.errors import Overloaded
from shared.formats.password_hashes import BCRYPT, BCRYPT_SHA256, MAX_ROUNDS, MIN_ROUNDS
from shared.formats.unicode import normalized
from shared.observe import metrics
from shared.observe.notices import Notices

if TYPE_CHECKING:
    from shared.formats.foreign_hashes import ForeignHash

MAX_BYTES = 72
"""bcrypt ignores further bytes. A password of this length or more counts as long."""
MEMORY_PATIENCE = 15.0
"""Seconds for which a hash waits for memory that others hold."""
_NO_MEMORY = "hashes of other systems have all the memory that they may"
MEMORY_BUDGET = 128 * 2**20
"""Bytes for all hashes of other systems that a process computes at once; one alone may need all."""


class Budget:
    """Lends shares of a number: first come, first served. Thread-safe.

    Nobody overtakes: neither small ones a big one, nor whoever comes again at once somebody who has
    waited, as with the semaphores of `threading`.
    """

    def __init__(self, size: int) -> None:
        """Lend nothing yet."""
        self._free = self._size = size
        self._changing = threading.Lock()
        self._waiting: deque[tuple[int, threading.Event]] = deque()

    @contextmanager
    def holding(self, share: int, patience: float | None = None) -> Iterator[None]:
        """Wait until so much is free, at most all, and hold it during the block.

        Who needs none waits for nobody. Raises Overloaded after `patience` seconds.
        """
        share = min(share, self._size)
        if not share:
            yield
            return
        turn = share, threading.Event()
        with self._changing:
            self._waiting.append(turn)
            self._serve()
        if not turn[1].wait(patience):
            with self._changing:
                if turn in self._waiting:  # It may have been served meanwhile.
                    self._waiting.remove(turn)
                    self._serve()
                    raise Overloaded(cause=_NO_MEMORY)
        try:
            yield
        finally:
            with self._changing:
                self._free += share
                self._serve()

    def _serve(self) -> None:
        while self._waiting and self._waiting[0][0] <= self._free:
            share, served = self._waiting.popleft()
            self._free -= share
            served.set()


class PasswordHasher:
    """Hashes at one cost. `rounds` is bcrypt's exponent, 4 to 14. Thread-safe."""

    def __init__(
        self,
        rounds: int,
        *,
        concurrency: int = 1,
        shares: PasswordHasher | None = None,
        peppers: tuple[str, ...] = (),
    ) -> None:
        """`concurrency` is the number of hashes computed at once; or it `shares` another's bounds.

        `peppers` are the keys that hashes of other systems name.
        """
        self.rounds = rounds
        self._computing: Budget = shares._computing if shares else Budget(concurrency)
        self._memory: Budget = shares._memory if shares else Budget(MEMORY_BUDGET)
        self._peppers = peppers
        self._notices = Notices()

    def hash(self, password: str) -> str:
        """Hash a new password. The text must be encodable as UTF-8."""
        normal = _normal(password)
        salt = bcrypt.gensalt(self.rounds)
        if len(normal) < MAX_BYTES:
            return self._hashed(normal, salt)
        _, _, _, salt22 = salt.decode().split("$")
        digest = self._hashed(_condensed(normal, salt22), salt)[-31:]
        return f"$bcrypt-sha256$v=2,t=2b,r={self.rounds}${salt22}${digest}"

    def verify(self, password: str, stored: str | None) -> bool:
        """Tell whether the stored hash is the password's.

        A refusal takes the same time whatever is stored: a missing or corrupt hash is replaced by
        a dummy, and a cheaper one is padded to the current cost. Only a costlier one takes longer,
        and one of another system, which the dummy follows. The number of hashes depends only on
        the password: one, or two if it is not in NFC.
        """
        raw, normal = password.encode(), _normal(password)
        if long := _usable(BCRYPT_SHA256, stored):
            target = f"$2b${int(long[1]):02d}${long[2]}{long[3]}".encode()
            candidates = [_condensed(normal, long[2])]
        elif plain := _usable(BCRYPT, stored):
            target = plain[0].encode()
            candidates = [raw[:MAX_BYTES]]
            if raw != normal and len(normal) < MAX_BYTES:
                candidates.insert(0, normal)
        elif stored and self._matches_foreign(password, stored):
            return True
        else:
            target, candidates = _dummy(self.rounds), [raw[:MAX_BYTES]]
        if raw != normal and len(candidates) == 1:
            candidates.append(candidates[0])
        with self._timed("verify"):
            # Always all of them, for constant time.
            outcomes = [self._matches(candidate, target) for candidate in candidates]
        return any(outcomes)

    def _matches_foreign(self, password: str, stored: str) -> bool:
        if (foreign := _foreign(stored)) is None:
            return False
        from shared.credentials import foreign_hashes  # Few users have one, and only until a login.

        try:
            # The memory first: who waits for it must not keep others from computing.
            with (
                self._memory.holding(foreign.memory, MEMORY_PATIENCE),
                self._timed("verify_foreign"),
            ):
                return foreign_hashes.matches(password, foreign, self._peppers)
        except foreign_hashes.PepperMissing as error:
            self._notices.warn(
                "Passwords cannot be verified: PASSWORD_PEPPERS lacks a key that hashes need",
                str(error),
                fingerprint=str(error),
            )
            return False
        except (ValueError, OverflowError):
            # A library that has other bounds than ours: nobody's password is right.
            self._notices.warn("A hash of another system cannot be computed", foreign.algorithm)
            return False

    def _hashed(self, candidate: bytes, salt: bytes) -> str:
        with self._timed("hash"):
            return bcrypt.hashpw(candidate, salt).decode()

    @contextmanager
    def _timed(self, operation: str) -> Iterator[None]:
        """Wait for a turn, then record the duration of the block."""
        with self._computing.holding(1):
            began = time.perf_counter()
            yield
        metrics.HASHES.record(time.perf_counter() - began, operation)

    def _matches(self, candidate: bytes, target: bytes) -> bool:
        try:
            if bcrypt.checkpw(candidate, target):
                return True
            cost = int(target[4:6])
        except ValueError:  # bcrypt refuses the salt without hashing.
            cost = self.rounds
            bcrypt.checkpw(candidate, _dummy(cost))
        # Cost c takes 2**c, and 2**c + 2**c + 2**(c+1) + … + 2**(R-1) is 2**R.
        for rounds in range(cost, self.rounds):
            bcrypt.checkpw(candidate, _dummy(rounds))
        return False

    def needs_rehash(self, password: str, stored: str) -> bool:
        """Tell whether a hash that just verified is weaker than one of `hash`, or foreign.

        A foreign one stays while the password was typed in a way that only its maker takes for the
        same, with a blank at its end say: of ours the user would then be locked out without it.
        """
        normal = _normal(password)
        if len(normal) >= MAX_BYTES:
            cost = BCRYPT_SHA256.fullmatch(stored)
        else:
            cost = BCRYPT.fullmatch(stored)
            raw = password.encode()
            if cost and raw != normal:
                with self._timed("verify"):
                    if not bcrypt.checkpw(normal, stored.encode()):
                        return True
        if cost is None and (foreign := _foreign(stored)):
            from shared.credentials import foreign_hashes

            return foreign_hashes.is_typed_as_hashed(password, foreign)
        return cost is None or int(cost[1]) < self.rounds


def _foreign(stored: str) -> ForeignHash | None:
    """Read a hash of another system; None for one of ours, and for what is not to be computed."""
    if BCRYPT.fullmatch(stored) or BCRYPT_SHA256.fullmatch(stored):
        return None
    from shared.formats import foreign_hashes

    try:
        return foreign_hashes.parse(stored)
    except foreign_hashes.UnusableHash:
        return None


def _usable(pattern: re.Pattern[str], stored: str | None) -> re.Match[str] | None:
    found = pattern.fullmatch(stored or "")
    return found if found and MIN_ROUNDS <= int(found[1]) <= MAX_ROUNDS else None


def _normal(password: str) -> bytes:
    return normalized("NFC", password).encode()


def _condensed(normal: bytes, salt22: str) -> bytes:
    """Give bcrypt_sha256's input, keyed with the salt so that no leaked SHA-256 matches it."""
    return base64.b64encode(hmac.digest(salt22.encode(), normal, hashlib.sha256))


def _dummy(rounds: int) -> bytes:
    """Give a hash that matches no known password."""
    return f"$2b${rounds:02d}${'.' * 53}".encode()
