"""Which system a users file comes from, and what its operator says of it: `--from` and its kin."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import click

from shared.credentials.encryption import Encryption
from shared.credentials.id_tokens import firebase as firebase_tokens
from shared.errors import InvalidSource
from shared.formats.hash_recognition import SCHEMES, Scheme
from shared.model.users import SOURCE_ISSUER
from shared.transfer import checking
from shared.transfer.adapters import django, mapping
from shared.transfer.adapters.adapter import Adapter
from shared.transfer.adapters.hashes import FirebaseConfig, Hashes
from shared.transfer.adapters.person import LeftBehind, Surroundings
from shared.transfer.adapters.reading import AdaptedFile
from shared.transfer.adapters.recognition import recognise
from shared.transfer.adapters.systems import MAPPED, OURS, SYSTEMS
from shared.transfer.command import Command
from shared.transfer.sources import Opened, SourceFile, open_source

_BELONG = {
    "hash_config": ("firebase", "supertokens", mapping.NAME),
    "passwords": ("auth0",),
    "identities": ("supabase",),
    "project": ("firebase",),
    "model": ("django",),
    "columns": (mapping.NAME,),
}
"""The systems that an option is for; the others are for all."""
_path = click.Path(path_type=Path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """The options. Each is one of the command line."""

    system: str | None
    hash_config: Path | None
    passwords: Path | None
    identities: Path | None
    project: str | None
    model: str | None
    columns: str | None
    scheme: Scheme | None
    pepper_env: str | None
    check_email: str | None

    @contextmanager
    def open(self, command: Command, path: Path) -> Iterator[Opened]:
        """Open the file at a path. Raises InvalidSource."""
        with open_source(path) as file:
            adapter = self._adapter(self.system)
            if adapter is None and self.system is None and (found := recognise(file)):
                adapter = self._adapter(found.adapter.name)
                command.display.notice(
                    f"The file is taken for {found.adapter.title}'s, by its {found.mark}; "
                    f"{command.face.option('--from')} names another system."
                )
            self._refuse_options(adapter)
            if adapter is None:
                yield file
            else:
                yield self._adapted(command, file, adapter)

    def check(self, command: Command, path: Path) -> None:
        """Check the password that is to be checked, or warn where one should be.

        Raises TransferRefused, UsageError and InvalidSource.
        """
        if self.check_email is not None:
            with self.open(command, path) as source:
                checking.check(command, source.source(), self.check_email)
        elif self.hash_config or self.pepper_env or self.scheme:
            command.display.notice(checking.UNCHECKED)

    def _adapter(self, system: str | None) -> Adapter | None:
        if system in MAPPED:
            return mapping.adapter(mapping.parse_mapping(self.columns or ""))
        if system == "django" and self.model is not None:
            return django.adapter(self.model)
        return SYSTEMS.get(system or OURS)

    def _adapted(self, command: Command, file: SourceFile, adapter: Adapter) -> AdaptedFile:
        settings = command.settings.credentials
        keys = settings.encryption_keys
        project = self.project or settings.firebase_project_id
        if adapter.name == "firebase" and project is not None:
            issuer = firebase_tokens(project).issuers[0]
        else:
            issuer = f"{SOURCE_ISSUER}{adapter.name}"
        hashes = self._hashes(command)

        def around(left: LeftBehind) -> Surroundings:
            return Surroundings(
                issuer=issuer,
                hashes=hashes,
                encryption=Encryption(keys) if keys else None,
                as_of=file.modified,
                left=left,
            )

        others = {"passwords": self.passwords, "identities": self.identities}
        return AdaptedFile(
            file, adapter, around, {name: path for name, path in others.items() if path is not None}
        )

    def _hashes(self, command: Command) -> Hashes:
        key = None
        if self.pepper_env is not None:
            key = os.environ.get(self.pepper_env)
            if not key:
                raise click.UsageError(f"--pepper-env names {self.pepper_env}, which is not set.")
        return Hashes(
            scheme=self.scheme,
            key=key,
            config=None if self.hash_config is None else FirebaseConfig.read(self.hash_config),
            peppers=command.settings.credentials.password_peppers,
        )

    def _refuse_options(self, adapter: Adapter | None) -> None:
        """Refuse what would be ignored."""
        others = {it.name for it in fields(self)} - {"system", "check_email"}
        given = {name for name in others if getattr(self, name) is not None}
        if adapter is None and given:
            raise InvalidSource(
                "The file is taken for a users file of ours, to which the options that tell of "
                "another system's do not belong: name that with --from."
            )
        for name, systems in _BELONG.items():
            if adapter is not None and name in given and adapter.name not in systems:
                option = "map" if name == "columns" else name.replace("_", "-")
                raise InvalidSource(
                    f"--{option} does not belong to a file of {adapter.title}: leave it out, or "
                    "name the system with --from."
                )


_OPTIONS = (
    click.option(
        "--from",
        "system",
        type=click.Choice([*SYSTEMS, *MAPPED, OURS]),
        help="The system that the file comes from; csv and json are all others, with --map, and "
        "users is a users file of ours.",
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
    click.option("--pepper-env", help="The variable that holds the pepper or key of the hashes."),
    click.option(
        "--check",
        "check_email",
        metavar="EMAIL",
        help="Ask for the password of this user, and verify it before anything is written.",
    ),
)


def origin_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add the options that make an Origin, which the function is called with."""

    @functools.wraps(function)
    def run(*arguments: Any, **options: Any) -> None:
        origin = Origin(**{field.name: options.pop(field.name) for field in fields(Origin)})
        function(*arguments, origin=origin, **options)

    decorated: Callable[..., None] = run
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    return decorated
