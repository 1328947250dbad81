"""Errors of the commands, with their exit codes."""

from __future__ import annotations

import click


class Failed(click.ClickException):
    """A step failed."""

    exit_code = 1


class NotReady(click.ClickException):
    """Nothing was started, because something is missing or wrong."""

    exit_code = 2
