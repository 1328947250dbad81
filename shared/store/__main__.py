"""`python -m shared.store`: bring the database up to date by hand, with an hour's patience."""

from __future__ import annotations

import sys
from dataclasses import replace

from shared.config import InvalidSettings, Settings
from shared.errors import StoreFault, StoreUnavailable
from shared.store.postgres import bring_up_to_date

PATIENCE = 3600.0


def main() -> int:
    """Do what is pending; 0 when the database is up to date, 1 otherwise."""
    try:
        settings = Settings.from_env()
        if settings.database_url is None:
            print("DATABASE_URL is missing: there is no database to migrate.", file=sys.stderr)
            return 1
        bring_up_to_date(settings.database_url, replace(settings, database_timeout=PATIENCE))
    except InvalidSettings as error:
        print(error, file=sys.stderr)
        return 1
    except (StoreUnavailable, StoreFault) as error:
        print(f"The database could not be brought up to date: {error}", file=sys.stderr)
        return 1
    print("The database is up to date.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
