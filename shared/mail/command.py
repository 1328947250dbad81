"""`make mail-deliver`: deliver what is due, by hand or from a scheduler."""

from __future__ import annotations

import sys

from shared.application import Application
from shared.environment import InvalidSettings
from shared.errors import StoreUnavailable
from shared.settings import Settings


def main() -> int:
    """Deliver once. Exits with 1 where something waits still, or nothing could be looked at."""
    try:
        app = Application(Settings.from_env().complete())
    except InvalidSettings as error:
        print(error, file=sys.stderr)
        return 1
    if not app.settings.mail.enabled:
        print("No mail is sent: MAIL_URL is not set.", file=sys.stderr)
        return 1
    try:
        sent = app.deliverer.deliver()
        waiting = app.store.mail.status().waiting
    except StoreUnavailable as error:
        print(f"Cannot read the outbox: {error.cause}", file=sys.stderr)
        return 1
    finally:
        app.close()
    name = app.settings.application
    of = f" of {name}" if name else ""
    print(f"Mails{of} delivered: {sent}. Still waiting: {waiting}.")
    return 1 if waiting else 0


if __name__ == "__main__":
    sys.exit(main())
