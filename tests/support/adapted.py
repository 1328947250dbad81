"""Files of other systems, adapted without a database."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from shared.credentials.encryption import Encryption
from shared.transfer.adapters.adapter import Adapter
from shared.transfer.adapters.hashes import FirebaseConfig, Hashes
from shared.transfer.adapters.person import LeftBehind, Surroundings
from shared.transfer.adapters.reading import AdaptedFile
from shared.transfer.adapters.systems import SYSTEMS
from shared.transfer.source_file import SourceFile, open_source

KEY = bytes(range(32))
ENCRYPTION = Encryption([KEY])
AS_OF = 1_750_000_000.0
"""When each file was written: in June 2025."""
ISSUER = "urn:ai-coder:source:test"
FILES = Path(__file__).parent.parent / "data" / "sources"


def adapted_file(
    file: SourceFile,
    adapter: Adapter | str,
    *,
    encryption: Encryption | None = ENCRYPTION,
    issuer: str = ISSUER,
    config: Path | None = FILES / "firebase-hash-config.txt",
    hashes: Hashes | None = None,
    **others: Path,
) -> AdaptedFile:
    """Take an open file for another system's; `others` are files by their options."""
    known = hashes or Hashes(config=None if config is None else FirebaseConfig.read(config))

    def around(left: LeftBehind) -> Surroundings:
        return Surroundings(
            issuer=issuer, hashes=known, encryption=encryption, as_of=AS_OF, left=left
        )

    adapter = SYSTEMS[adapter] if isinstance(adapter, str) else adapter
    return AdaptedFile(file, adapter, around, others)


class Adapted:
    """What became of a file: its rows, and what stays behind."""

    def __init__(self, path: Path, adapter: Adapter | str, **options: Any) -> None:
        with open_source(path) as file:
            self.source = adapted_file(file, adapter, **options).source()
            self.rows: list[Any] = list(self.source.rows())
        self.left = {name: it["examples"] for name, it in self.source.left_behind.items()}


def adapted(folder: Path, system: Adapter | str, content: Any, **options: Any) -> Adapted:
    """Adapt rows, or the bytes or text of a file."""
    path = folder / "source"
    if isinstance(content, str):
        content = content.encode()
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return Adapted(path, system, **options)
