"""Where users are kept: a contract, and a folder or a file an implementation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shared.settings import Settings

if TYPE_CHECKING:
    from shared.store.contract import Store


def open_store(settings: Settings) -> Store:
    """Make the store that the settings name. Neither connects nor reads yet."""
    if settings.use_database:
        from shared.store.postgres.store import PostgresStore

        if settings.fallback == "off":
            return PostgresStore(settings)
        from shared.store.fallback import FallbackStore

        return FallbackStore(settings)
    from shared.store.json_file.store import JsonFileStore

    return JsonFileStore(settings)
