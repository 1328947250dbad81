"""What a person sees of a transfer, and what a program does: bars and tables, or JSON lines."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import closing, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import click

from shared.transfer.steps import Event, Outcome, Progress, Stage

SHOWN_OUTCOMES = 20
"""How many users are named to a person; `--json` names all of them."""
PROGRESS_SECONDS = 1.0
"""Between two lines of progress where there is no terminal."""

_LABELS: dict[Stage, str] = {
    "read": "Reading",
    "compare": "Comparing",
    "write": "Writing",
    "verify": "Verifying",
}

Result = TypeVar("Result")


class Display:
    """Shows events on standard error as they come, and results on standard output.

    `as_json` writes everything on standard output as JSON lines, the last of which is the result.
    """

    def __init__(self, *, as_json: bool) -> None:
        """Show nothing yet."""
        self.as_json = as_json
        self._outcomes = 0

    def run(
        self,
        transfer: Generator[Event, None, Result],
        *,
        length: int | None = None,
        on_event: Callable[[Event], object] = lambda _: None,
    ) -> Result:
        """Run a transfer to its end, and give its result; `length` is the source's, in bytes."""
        is_terminal = sys.stderr.isatty() and not self.as_json
        progress = self._bars(length) if is_terminal else self._lines()
        with closing(transfer), closing(progress):
            next(progress)
            while True:
                try:
                    event = next(transfer)
                except StopIteration as end:
                    return end.value  # type: ignore[no-any-return]  # the generator's Result
                if isinstance(event, Progress):
                    progress.send(event)
                elif isinstance(event, Outcome):
                    self._outcome(event)
                on_event(event)

    def table(self, title: str, rows: Iterable[tuple[str, object, str]]) -> None:
        """Show a name, a number or text, and an explanation a line."""
        if self.as_json:
            return
        rows = list(rows)
        shown = [f"{value:,}" if isinstance(value, int) else str(value) for _, value, _ in rows]
        names = max((len(name) for name, _, _ in rows), default=0)
        values = max(map(len, shown), default=0)
        if title:
            click.secho(title, bold=True)
        for (name, value, text), cell in zip(rows, shown, strict=True):
            cell = cell.rjust(values) if isinstance(value, int) else cell.ljust(values)
            click.echo(f"  {name:<{names}}  {cell}  {_printable(text)}".rstrip())

    def text(self, text: str) -> None:
        """Show text for a person."""
        if not self.as_json:
            click.echo(text, nl=False)

    def applied(self, migration: str) -> None:
        """Tell that a migration was applied."""
        if self.as_json:
            self._write("migration", {"name": migration})
        self.text(f"Applied {migration}.\n")

    def result(self, **members: object) -> None:
        """Write the last line, where a program reads."""
        if self.as_json:
            self._write("result", members)

    def error(self, code: str, sentence: str) -> None:
        """Say what went wrong."""
        if self.as_json:
            with suppress(OSError):  # It may be what went wrong.
                self._write("error", {"code": code, "error": sentence})
        click.secho(sentence, fg="red", err=True)

    def end_output(self) -> None:
        """Write nothing more: what standard output didn't take would fail again at the exit."""
        with suppress(OSError), Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())

    def _outcome(self, outcome: Outcome) -> None:
        self._outcomes += 1
        if self.as_json:
            self._write("outcome", {k: v for k, v in asdict(outcome).items() if v is not None})
        elif self._outcomes <= SHOWN_OUTCOMES:
            who = f"row {outcome.row}" if outcome.row else f"{outcome.email or outcome.user_id}"
            click.echo(f"  {who}: {outcome.verdict}. {_printable(outcome.reason)}", err=True)
        elif self._outcomes == SHOWN_OUTCOMES + 1:
            click.echo("  … and more: --json names all of them.", err=True)

    def _lines(self) -> Generator[None, Progress, None]:
        """Write progress as JSON lines, one a second and one a stage."""
        latest, stage = 0.0, None
        while True:
            progress = yield
            if progress.stage != stage or time.monotonic() - latest >= PROGRESS_SECONDS:
                latest, stage = time.monotonic(), progress.stage
                line = json.dumps({"event": "progress"} | asdict(progress))
                click.echo(line, err=not self.as_json)

    def _bars(self, length: int | None) -> Generator[None, Progress, None]:
        """Draw a bar with rate and time left for what is read, and name every other stage."""
        started = time.monotonic()
        progress = yield
        if progress.bytes:
            with click.progressbar(
                length=length,
                label=_LABELS[progress.stage],
                item_show_func=lambda rate: rate,
                file=sys.stderr,
            ) as bar:
                stage, position = progress.stage, 0
                while progress.stage == stage:
                    rate = progress.rows / max(time.monotonic() - started, 0.001)
                    bar.update(progress.bytes - position, f"{rate:,.0f} rows/s" if rate else "")
                    position = progress.bytes
                    progress = yield
        while True:
            click.echo(f"{_LABELS[progress.stage]} …", err=True)
            progress = yield

    def _write(self, event: str, members: dict[str, Any]) -> None:
        click.echo(json.dumps({"event": event} | members, default=str))


def _printable(text: str) -> str:
    """Keep what a file says from steering the terminal."""
    return "".join(c if c.isprintable() else "�" for c in text)
