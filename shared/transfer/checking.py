"""Checks one known password against the hash that is about to be written: `--check EMAIL`.

A wrong signer key, pepper or scheme passes every comparison of a hash with itself.
"""

from __future__ import annotations

from collections.abc import Callable

from shared.errors import TransferRefused
from shared.model.emails import email_key
from shared.model.user_record import InvalidRow, UserRecord, parse
from shared.transfer.adapters.person import HASH_LEFT_BEHIND
from shared.transfer.named_rows import masked
from shared.transfer.sources import Rows

UNCHECKED = (
    "No password was checked, and a wrong key, pepper or scheme passes every proof: --check EMAIL "
    "asks for one that you know."
)


def check(
    rows: Rows, address: str, ask: Callable[[str], str], verify: Callable[[str, str], bool]
) -> str:
    """Verify the password of a user of the source, and give a sentence that says so.

    `ask` gives the password, of whom it is told. Raises TransferRefused if it is another.
    """
    who = masked(address)
    record = _find(rows, email_key(address))
    if record is None:
        raise TransferRefused(
            f"The source has no valid user {who}, whose password was to be checked."
        )
    if record.password is None:
        reasons = [it for it in rows.left_behind if it.startswith(HASH_LEFT_BEHIND)]
        told = f" ({'; '.join(reasons)})" if reasons else ""
        raise TransferRefused(
            f"{who} comes without a password's hash{told}: check somebody else's."
        )
    if not verify(ask(who), record.password):
        raise TransferRefused(
            f"This is not the password of {who} by the hash in the source: a signer key, pepper or "
            "scheme is wrong, if it was not mistyped. Nothing was changed."
        )
    return f"The password of {who} is verified by the hash in the source."


def _find(rows: Rows, key: str) -> UserRecord | None:
    found = None
    for row in rows.rows():  # To the end, where a change of the file shows.
        if found is None and isinstance(row, dict) and email_key(str(row.get("email"))) == key:
            try:
                found = parse(row)
            except InvalidRow:
                continue
    return found
