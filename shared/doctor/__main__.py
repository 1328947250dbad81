"""The command line, `python -m shared.doctor`.

Exit codes: 0 no problem, 1 a problem, 2 wrong option, 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from contextlib import suppress
from io import TextIOWrapper
from pathlib import Path

from shared.doctor.checks import CHECKS, look_at
from shared.doctor.subject import Finding, Subject
from shared.formats.counts import count

PROBLEM, INTERRUPTED = 1, 130


def main(arguments: list[str] | None = None) -> int:
    """Run the checks, write what they find, and give the exit code."""
    options = _parser().parse_args(arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # What it cannot show must not stop anything.
            stream.reconfigure(errors="backslashreplace")
    found: list[Finding] = []
    try:
        for name, finding in look_at(Subject(os.environ, options.env_file), options.only):
            found.append(finding)
            if options.json:
                _write_json(name, finding)
            elif finding.verdict != "ok" or not options.brief:
                _write(name, finding, is_brief=options.brief)
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return INTERRUPTED
    problems, notes = (sum(it.verdict == kind for it in found) for kind in ("problem", "note"))
    if options.json:
        print(json.dumps({"event": "result", "problems": problems, "notes": notes}))
    elif not options.brief:
        print(f"{count(problems, 'problem')}, {count(notes, 'note')}.")
    return PROBLEM if problems else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="make doctor" if "UNDER_MAKE" in os.environ else "python -m shared.doctor",
        description="Look at settings, database and machine; change nothing.",
        epilog="Exit codes: 0 no problem; 1 a problem; 2 wrong option; 130 interrupted.",
    )
    parser.add_argument("--json", action="store_true", help="write JSON lines")
    parser.add_argument(
        "--brief", action="store_true", help="write only notes and problems, to standard error"
    )
    parser.add_argument(
        "--env-file", type=Path, default=Path(".env"), metavar="FILE",
        help="the file of settings (default: .env)",
    )  # fmt: skip
    parser.add_argument(
        "--only", action="append", default=[], choices=dict(CHECKS), metavar="CHECK",
        help=f"one of {', '.join(dict(CHECKS))}; may be repeated",
    )  # fmt: skip
    return parser


def _write(name: str, finding: Finding, *, is_brief: bool) -> None:
    lines = [f"{finding.verdict:<8} {name:<9} {finding.sentence}"]
    if finding.remedy:
        lines.append(f"{'':<18} {finding.remedy}")
    text = "\n".join("".join(c if c.isprintable() else "�" for c in line) for line in lines)
    print(text, file=sys.stderr if is_brief else sys.stdout, flush=True)


def _write_json(name: str, finding: Finding) -> None:
    line = {"event": "check", "name": name, "verdict": finding.verdict}
    line |= {"sentence": finding.sentence, "remedy": finding.remedy}
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BrokenPipeError:
        with suppress(OSError), Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        sys.exit(PROBLEM)
