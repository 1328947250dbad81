"""Writes what Django's own `dumpdata` writes of users whom Django itself has made.

Run as a program: it takes the file to write.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime

import django
from django.conf import settings

HASHERS = ("PBKDF2", "Argon2", "BCryptSHA256", "BCrypt", "Scrypt")
PASSWORD = "correct horse 42"


def _write(path: str) -> None:
    settings.configure(
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
        INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth"],
        PASSWORD_HASHERS=[f"django.contrib.auth.hashers.{name}PasswordHasher" for name in HASHERS],
        USE_TZ=True,
    )
    django.setup()
    from django.contrib.auth.hashers import get_hashers, make_password
    from django.contrib.auth.models import Group, User
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    editors = Group.objects.create(name="editors")
    for name, hasher in zip(HASHERS, get_hashers(), strict=True):
        user = User(username=name.lower(), email=f"{name.lower()}@example.com", first_name=name)
        user.password = make_password(PASSWORD, hasher=hasher.algorithm)
        user.date_joined = datetime(2025, 1, 1, tzinfo=UTC)
        user.save()
    user.groups.add(editors)
    User.objects.create_user("away", "away@example.com", PASSWORD, is_active=False)
    User.objects.create_user("social", "social@example.com")
    User.objects.create_user("robot", "", PASSWORD)
    User.objects.create_superuser("root", "root@example.com", PASSWORD)
    call_command("dumpdata", "auth", output=path, use_natural_foreign_keys=True, verbosity=0)


if __name__ == "__main__":
    _write(sys.argv[1])
