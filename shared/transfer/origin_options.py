"""The options of the command line that make an Origin, and the password that `--check` asks for."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import click

from shared.formats.hash_recognition import SCHEMES
from shared.transfer import checking
from shared.transfer.command import Command
from shared.transfer.origins import NAMES, Origin
from shared.transfer.sources import Opened

_path = click.Path(path_type=Path)


@dataclass(frozen=True, slots=True)
class Given:
    """A file's origin as the options tell it, and whose password is to be checked."""

    origin: Origin
    check_email: str | None

    def open(self, command: Command, path: Path) -> AbstractContextManager[Opened]:
        """Open the file at a path. Raises InvalidSource."""
        return self.origin.open(path, command.settings.credentials, command.display.notice)

    def check(self, command: Command, path: Path) -> None:
        """Check the password that is to be checked.

        Raises TransferRefused, UsageError and InvalidSource.
        """
        if self.check_email is None:
            return
        from shared.credentials.passwords import PasswordHasher  # It loads bcrypt.

        settings = command.settings.credentials
        hasher = PasswordHasher(settings.bcrypt_rounds, peppers=settings.password_peppers)
        with self.open(command, path) as source:
            checked = checking.check(source.source(), self.check_email, _ask, hasher.verify)
        command.display.notice(checked)

    def remind(self, command: Command) -> None:
        """Warn where no password was checked, and one should be."""
        if self.check_email is None and self.origin.wants_check:
            command.display.notice(checking.UNCHECKED)


def _ask(who: str) -> str:
    if not sys.stdin.isatty():
        raise click.UsageError("There is no terminal to ask for the password of --check on.")
    return str(click.prompt(f"Password of {who}", hide_input=True, err=True))


def _pepper(_: click.Context, __: click.Parameter, name: str | None) -> str | None:
    """Read the variable that `--pepper-env` names."""
    if name is None:
        return None
    if not os.environ.get(name):
        raise click.UsageError(f"--pepper-env names {name}, which is not set.")
    return os.environ[name]


_OPTIONS = (
    click.option(
        "--from",
        "system",
        type=click.Choice(NAMES),
        help="The system that the file comes from; csv and json are all others, with --map, and "
        "users is a users file of ours.",
    ),
    click.option(
        "--instance",
        help="A name for one of several installations of a system, whose ids are the same numbers.",
    ),
    click.option("--hash-config", type=_path, help="Firebase's password hash parameters."),
    click.option("--passwords", type=_path, help="Auth0's export of password hashes."),
    click.option("--identities", type=_path, help="Supabase's table auth.identities."),
    click.option("--project", help="Firebase's project, instead of FIREBASE_PROJECT_ID."),
    click.option("--model", help="Django's model of users, such as app.user."),
    click.option("--map", "columns", help="What the file calls what: email=mail,password=pw_hash."),
    click.option(
        "--hash",
        "scheme",
        type=click.Choice(SCHEMES),
        help="Whose the hashes are, where the text does not tell.",
    ),
    click.option(
        "--pepper-env",
        "pepper",
        callback=_pepper,
        help="The variable that holds the pepper or key of the hashes.",
    ),
    click.option(
        "--check",
        "check_email",
        metavar="EMAIL",
        help="Ask for the password of this user, and verify it before anything is written.",
    ),
)


def origin_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add the options that tell where a file comes from, as the function's `given`."""

    @functools.wraps(function)
    def run(*arguments: Any, check_email: str | None, **options: Any) -> None:
        said = {field.name: options.pop(field.name) for field in fields(Origin)}
        function(*arguments, given=Given(Origin(**said), check_email), **options)

    decorated: Callable[..., None] = run
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    return decorated
