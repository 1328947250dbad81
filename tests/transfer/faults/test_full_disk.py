"""A full disk leaves everything as it was."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from tests.support.commands import Command, Ended, run
from tests.support.import_faults import APPLY, USERS, snapshot, url, write
from tests.support.transfers import Target, user


def _on_a_full_disk(target: Target, users_file: Path, size: int, *arguments: str) -> Ended:
    """Run a command that cannot make any file longer than `size`; this needs no root."""
    limit = (size, resource.RLIM_INFINITY)
    return Command(
        url(target), users_file, *arguments,
        before=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit),
    ).wait()  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "size", "arguments"),
    [
        ("backup", 40_000, ["backup"]),
        ("export", 40_000, ["export"]),
        ("report", 10_000, APPLY),
        ("rejected", 100_000, APPLY),
    ],
)
def test_a_full_disk_is_said_to_be_and_leaves_everything_as_it_was(
    target: Target, users_file: Path, kind: str, size: int, arguments: list[str]
) -> None:
    rows = [*map(user, range(USERS)), user(USERS, email="nobody", avatar="x" * size)]
    write(users_file, rows)
    if kind == "export":
        target.apply(rows, skip_invalid=True)
    before = target.dump(), snapshot(users_file.parent).keys(), users_file.read_bytes()
    ended = _on_a_full_disk(target, users_file, size, *arguments)
    assert ended.code == 1, ended
    sentence = ended.error.splitlines()[-1]
    assert sentence.startswith("File too large: ")
    assert f"users.{kind}." in sentence
    assert sentence.endswith(". Nothing was changed.")
    assert (target.dump(), snapshot(users_file.parent).keys(), users_file.read_bytes()) == before
    assert run(url(target), users_file, *arguments).code == 0
