"""The output of a transfer: bars and tables for people, or JSON lines for programs."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing, suppress
from datetime import datetime

import click

from shared.console import escape_unencodable, printable
from shared.formats.timestamps import to_iso
from shared.transfer.steps import (
    PROGRESS_SECONDS,
    Done,
    Event,
    Outcome,
    Progress,
    Result,
    Stage,
    run,
    to_json,
)
from shared.transfer.wording import Face

SHOWN_OUTCOMES = 20
"""How many users are named to a person; `--json` names all of them."""
_LABELS: dict[Stage, str] = {
    "read": "Reading",
    "compare": "Comparing",
    "write": "Writing",
    "verify": "Verifying",
}


class Display:
    """Shows events on standard error as they come, and results on standard output.

    `as_json` writes everything on standard output as JSON lines, the last of which is the result.
    """

    def __init__(self, *, as_json: bool, face: Face) -> None:
        """Show nothing yet. `face` tells how the reader calls an option."""
        self.as_json = as_json
        self._more = f"  … and more: {face.option('--json')} names all of them."
        escape_unencodable()
        self._outcomes = 0
        self._noticed: set[str] = set()

    def run(
        self,
        transfer: Generator[Event, None, Result],
        *,
        length: int | None = None,
        on_event: Callable[[Event], object] = lambda _: None,
    ) -> Result:
        """Run a transfer to its end, and give its result; `length` is the source's, in bytes."""
        is_drawn = sys.stderr.isatty() and not self.as_json
        events = run(transfer, seconds=0.0 if is_drawn else PROGRESS_SECONDS)
        show = self._bars(length) if is_drawn else self._lines()
        self._outcomes = 0
        with closing(events), closing(show):
            next(show)
            for event in events:
                if isinstance(event, Done):
                    return event.result
                if isinstance(event, Progress):
                    show.send(event)
                elif isinstance(event, Outcome):
                    self._outcome(event)
                on_event(event)
        raise AssertionError("a transfer ends with Done")

    def table(self, title: str, rows: Iterable[tuple[str, object, str]]) -> None:
        """Show a name, a number or text, and an explanation a line."""
        if self.as_json:
            return
        rows = list(rows)
        shown = [f"{value:,}" if isinstance(value, int) else str(value) for _, value, _ in rows]
        names = max((len(name) for name, _, _ in rows), default=0)
        values = max(map(len, shown), default=0)
        if title:
            click.secho(printable(title), bold=True)
        for (name, value, text), cell in zip(rows, shown, strict=True):
            cell = cell.rjust(values) if isinstance(value, int) else cell.ljust(values)
            click.echo(printable(f"  {name:<{names}}  {cell}  {text}".rstrip()))

    def users(self, title: str, lines: Sequence[str]) -> None:
        """Show a line for each of some users, if there are any, and not too many to a person."""
        if self.as_json or not lines:
            return
        click.echo(printable(title))
        for line in lines[:SHOWN_OUTCOMES]:
            click.echo(printable(f"  {line}"))
        if len(lines) > SHOWN_OUTCOMES:
            click.echo(self._more)

    def text(self, text: str) -> None:
        """Show text for a person."""
        if not self.as_json:
            click.echo(text, nl=False)

    def notice(self, sentence: str) -> None:
        """Say once what is otherwise than the reader may expect."""
        if sentence in self._noticed:
            return
        self._noticed.add(sentence)
        if self.as_json:
            self._write({"event": "notice", "sentence": sentence})
        else:
            click.echo(printable(sentence), err=True)

    def applied(self, migration: str) -> None:
        """Tell that a migration was applied."""
        if self.as_json:
            self._write({"event": "migration", "name": migration})
        self.text(f"Applied {migration}.\n")

    def result(self, **members: object) -> None:
        """Write the last line, where a program reads."""
        if self.as_json:
            self._write({"event": "result"} | members)

    def remark(self, sentence: str) -> None:
        """Say what a person is to know, if anything, of something that was done all the same."""
        if sentence:
            click.secho(printable(sentence), fg="yellow", err=True)

    def error(self, code: str, sentence: str) -> None:
        """Say what went wrong."""
        if self.as_json:
            with suppress(OSError):  # It may be what went wrong.
                self._write({"event": "error", "code": code, "error": sentence})
        click.secho("\n".join(map(printable, sentence.split("\n"))), fg="red", err=True)

    def _outcome(self, outcome: Outcome) -> None:
        self._outcomes += 1
        if self.as_json:
            self._write(to_json(outcome))
        elif self._outcomes <= SHOWN_OUTCOMES:
            who = f"{outcome.email or outcome.user_id}"
            if outcome.row:
                names = ", ".join(filter(None, (outcome.user_id, outcome.email)))
                who = f"row {outcome.row} ({names})" if names else f"row {outcome.row}"
            verdict = outcome.verdict.replace("_", " ")
            if outcome.other_row:
                verdict += f" of row {outcome.other_row}"
            if outcome.other_id:
                verdict += f" by {outcome.other_id}"
            click.echo(printable(f"  {who}: {verdict}. {outcome.reason}"), err=True)
        elif self._outcomes == SHOWN_OUTCOMES + 1:
            click.echo(self._more, err=True)

    def _lines(self) -> Generator[None, Progress, None]:
        """Write progress as JSON lines."""
        while True:
            progress = yield
            click.echo(json.dumps(to_json(progress)), err=not self.as_json)

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

    def _write(self, members: Mapping[str, object]) -> None:
        click.echo(json.dumps(members, default=_plain))


def _plain(value: object) -> str:
    return to_iso(value) if isinstance(value, datetime) else str(value)
