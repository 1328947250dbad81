"""Which system a users file comes from, and what its operator says of it: `--from` and its kin."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path

from shared.credentials.settings import CredentialSettings
from shared.errors import InvalidSource
from shared.formats.hash_recognition import SCHEMES, Scheme
from shared.model.users import FIREBASE_ISSUER, SOURCE_ISSUER
from shared.transfer.adapters import django, mapping
from shared.transfer.adapters.adapter import Adapter
from shared.transfer.adapters.hashes import FirebaseConfig, Hashes
from shared.transfer.adapters.person import LeftBehind, Surroundings
from shared.transfer.adapters.reading import AdaptedFile
from shared.transfer.adapters.recognition import recognise
from shared.transfer.adapters.systems import MAPPED, OURS, SYSTEMS
from shared.transfer.source_file import SourceFile, open_source
from shared.transfer.sources import Opened

NAMES = (*SYSTEMS, *MAPPED, OURS)
"""What `--from` takes."""
_BELONG = {
    "hash_config": ("firebase", "supertokens", mapping.NAME),
    "scheme": (mapping.NAME,),
    "pepper": ("supertokens", mapping.NAME),
    "passwords": ("auth0",),
    "identities": ("supabase",),
    "project": ("firebase",),
    "model": ("django",),
    "columns": (mapping.NAME,),
}
"""The systems that an option is for; the others are for all."""
_OPTIONS = {"columns": "map", "scheme": "hash", "pepper": "pepper-env"}
"""What an option is called that cannot be called so here."""
_INSTANCE = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What an operator says of a file: options of the command line, None where nothing is said."""

    system: str | None = None
    instance: str | None = None
    hash_config: Path | None = None
    passwords: Path | None = None
    identities: Path | None = None
    project: str | None = None
    model: str | None = None
    columns: str | None = None
    scheme: Scheme | None = None
    pepper: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Check each option by itself. Raises InvalidSource."""
        for option, value, known in (("from", self.system, NAMES), ("hash", self.scheme, SCHEMES)):
            if value is not None and value not in known:
                raise InvalidSource(f"--{option} is none of {', '.join(known)}.")
        if self.instance is not None and not _INSTANCE.fullmatch(self.instance):
            raise InvalidSource(
                "--instance is a name of lower case letters, digits and hyphens, such as shop-eu; "
                "it has 40 characters at most."
            )

    @property
    def wants_check(self) -> bool:
        """Tell whether something is said that makes every hash useless if it is wrong."""
        return any((self.hash_config, self.pepper, self.scheme))

    @contextmanager
    def open(
        self, path: Path, settings: CredentialSettings, tell: Callable[[str], object]
    ) -> Iterator[Opened]:
        """Open the file at a path. Raises InvalidSource.

        Tells what it is taken for, and at the end of the block whether a key was not needed.
        """
        with open_source(path) as file:
            if file.is_empty:
                raise InvalidSource(f"The file {path} is empty.")
            adapter = self._adapter(self.system)
            if self.system is not None:
                self._compare_with_marks(file, adapter, tell)
            elif found := recognise(file):
                adapter = self._adapter(found.adapter.name)
                tell(
                    f"The file is taken for {found.adapter.title}'s, by its {found.mark}; "
                    "--from names another system."
                )
            self._refuse_options(adapter)
            if adapter is None:
                yield file
                return
            hashes = self._hashes(settings)
            yield self._adapted(file, adapter, settings, hashes)
            if sentence := hashes.unneeded():
                tell(sentence)

    def _compare_with_marks(
        self, file: SourceFile, adapter: Adapter | None, tell: Callable[[str], object]
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
            tell(
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

    def _hashes(self, settings: CredentialSettings) -> Hashes:
        return Hashes(
            scheme=self.scheme,
            key=self.pepper,
            config=None if self.hash_config is None else FirebaseConfig.read(self.hash_config),
            peppers=settings.password_peppers,
        )

    def _adapted(
        self, file: SourceFile, adapter: Adapter, settings: CredentialSettings, hashes: Hashes
    ) -> AdaptedFile:
        encryption = None
        if keys := settings.encryption_keys:
            from shared.credentials.encryption import Encryption  # It loads cryptography.

            encryption = Encryption(keys)
        project = self.project or settings.firebase_project_id
        issuer = f"{SOURCE_ISSUER}{adapter.name}"
        if self.instance is not None:
            issuer = f"{issuer}:{self.instance}"
        elif adapter.name == "firebase" and project is not None:
            issuer = f"{FIREBASE_ISSUER}{project}"

        def around(left: LeftBehind) -> Surroundings:
            return Surroundings(
                issuer=issuer,
                hashes=hashes,
                encryption=encryption,
                as_of=file.modified,
                left=left,
            )

        others = {"passwords": self.passwords, "identities": self.identities}
        return AdaptedFile(
            file, adapter, around, {name: path for name, path in others.items() if path is not None}
        )

    def _refuse_options(self, adapter: Adapter | None) -> None:
        """Refuse what would be ignored."""
        others = {it.name for it in fields(self)} - {"system"}
        given = {name for name in others if getattr(self, name) is not None}
        if adapter is None and given:
            raise InvalidSource(
                "The file is taken for a users file of ours, to which the options that tell of "
                "another system's do not belong: name that with --from."
            )
        for name, systems in _BELONG.items():
            if adapter is not None and name in given and adapter.name not in systems:
                option = _OPTIONS.get(name, name.replace("_", "-"))
                raise InvalidSource(
                    f"--{option} does not belong to a file of {adapter.title}: leave it out, or "
                    "name the system with --from."
                )
        if given >= {"instance", "project"}:
            raise InvalidSource(
                "--instance and --project exclude each other: the ids of a Firebase project are "
                "its own."
            )
        is_mapped = adapter is not None and adapter.name == mapping.NAME
        if is_mapped and "pepper" in given and self.scheme != "devise":
            raise InvalidSource(
                "--pepper-env needs --hash devise: other hashes have no pepper of their own, and "
                "Firebase's signer key comes by --hash-config."
            )
