"""How a command ends that cannot do what it was asked for: a sentence and an exit code."""

from __future__ import annotations

import click


class Failed(click.ClickException):
    """Something was tried and did not work."""

    exit_code = 1


class NotReady(click.ClickException):
    """Nothing was tried, because something is missing or wrong."""

    exit_code = 2
