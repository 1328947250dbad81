"""Which system a users file comes from, and what its operator says of it: `--from` and its kin."""

from __future__ import annotations

import functools
import os
import re
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
    "scheme": (mapping.NAME,),
    "pepper_env": ("supertokens", mapping.NAME),
    "passwords": ("auth0",),
    "identities": ("supabase",),
    "project": ("firebase",),
    "model": ("django",),
    "columns": (mapping.NAME,),
}
"""The systems that an option is for; the others are for all."""
_NAMED = {"columns": "map", "scheme": "hash"}
"""What an option is called that cannot be called so here."""
_INSTANCE = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?")
_path = click.Path(path_type=Path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """The options. Each is one of the command line."""

    system: str | None
    instance: str | None
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
            if file.is_empty:
                raise InvalidSource(f"The file {path} is empty.")
            adapter = self._adapter(self.system)
            if self.system is not None:
                self._compare_with_marks(command, file, adapter)
            elif found := recognise(file):
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
        """Check the password that is to be checked.

        Raises TransferRefused, UsageError and InvalidSource.
        """
        if self.check_email is not None:
            with self.open(command, path) as source:
                checking.check(command, source.source(), self.check_email)

    def remind(self, command: Command) -> None:
        """Warn where no password was checked, and one should be."""
        if self.check_email is None and (self.hash_config or self.pepper_env or self.scheme):
            command.display.notice(checking.UNCHECKED)

    def _compare_with_marks(
        self, command: Command, file: SourceFile, adapter: Adapter | None
    ) -> None:
        """Refuse a file that tells of another system than is named."""
        try:
            found = recognise(file)
        except InvalidSource:  # It could be of several, or of none: the name decides.
            return
        if found is None or found.adapter.name == self.system:
            return
        tells = f"The file is {found.adapter.title}'s, by its {found.mark}, and --from says "
        if adapter is None or adapter.name == mapping.NAME:
            command.display.notice(
                f"{tells}{self.system}: --from {found.adapter.name} brings what is "
                f"{found.adapter.title}'s own."
            )
        else:
            raise InvalidSource(
                f"{tells}{adapter.title}: leave --from out, or say --from {found.adapter.name}."
            )

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
        issuer = f"{SOURCE_ISSUER}{adapter.name}"
        if self.instance is not None:
            issuer = f"{issuer}:{self.instance}"
        elif adapter.name == "firebase" and project is not None:
            issuer = firebase_tokens(project).issuers[0]
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
                option = _NAMED.get(name, name.replace("_", "-"))
                raise InvalidSource(
                    f"--{option} does not belong to a file of {adapter.title}: leave it out, or "
                    "name the system with --from."
                )
        if given >= {"instance", "project"}:
            raise click.UsageError(
                "--instance and --project exclude each other: the ids of a Firebase project are "
                "its own."
            )
        is_mapped = adapter is not None and adapter.name == mapping.NAME
        if is_mapped and "pepper_env" in given and self.scheme != "devise":
            raise click.UsageError(
                "--pepper-env needs --hash devise: other hashes have no pepper of their own, and "
                "Firebase's signer key comes by --hash-config."
            )


def _instance(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    if value is not None and not _INSTANCE.fullmatch(value):
        raise click.UsageError(
            "--instance is a name of lower case letters, digits and hyphens, such as shop-eu; it "
            "has 40 characters at most."
        )
    return value


_OPTIONS = (
    click.option(
        "--from",
        "system",
        type=click.Choice([*SYSTEMS, *MAPPED, OURS]),
        help="The system that the file comes from; csv and json are all others, with --map, and "
        "users is a users file of ours.",
    ),
    click.option(
        "--instance",
        callback=_instance,
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
