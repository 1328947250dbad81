"""The command line, `python -m shared.doctor`.

Exit codes: 0 no problem, 1 a problem, 2 wrong option, 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path

from shared import console
from shared.doctor.checks import BRIEF, CHECKS, look_at
from shared.doctor.subject import Finding, Subject
from shared.environment import Environment
from shared.formats.counts import count

PROBLEM, INTERRUPTED = 1, 130


def main(arguments: list[str] | None = None) -> int:
    """Run the checks, write what they find, and give the exit code."""
    options = _parser().parse_args(arguments)
    console.escape_unencodable()
    subject = Subject(os.environ, options.env_file)
    for name, value in subject.variables.items():
        os.environ.setdefault(name, value)  # As make does: urllib looks for a proxy there.
    subjects = [subject]
    names = Environment(os.environ).words("APPLICATIONS")
    if names and not subject.given("APPLICATION"):
        subjects = [Subject(os.environ | {"APPLICATION": name}, options.env_file) for name in names]
    try:
        if options.brief:
            return _tell_problems(subjects, options)
        return _tell_all(subjects, options)
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return INTERRUPTED


def _tell_all(subjects: list[Subject], options: argparse.Namespace) -> int:
    found: Counter[str] = Counter()
    for subject in subjects:
        for name, finding in look_at(subject, options.only):
            found[finding.verdict] += 1
            print(_line(subject, name, finding, as_json=options.json), flush=True)
    if options.json:
        result = {"event": "result", "problems": found["problem"], "notes": found["note"]}
        print(json.dumps(result))
    else:
        print(f"{count(found['problem'], 'problem')}, {count(found['note'], 'note')}.")
    return PROBLEM if found["problem"] else 0


def _tell_problems(subjects: list[Subject], options: argparse.Namespace) -> int:
    """Tell what the command that follows would not, which connects to the database itself."""
    code = 0
    for subject in subjects:
        if subject.inquiry is not None:
            subject.inquiry.reach()
        for name, finding in look_at(subject, options.only or BRIEF):
            if finding.verdict == "problem":
                line = _line(subject, name, finding, as_json=options.json)
                print(line, file=sys.stderr, flush=True)
                code = PROBLEM
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="make doctor" if "UNDER_MAKE" in os.environ else "python -m shared.doctor",
        description="Look at settings, database and machine; change nothing.",
        epilog="Exit codes: 0 no problem; 1 a problem; 2 wrong option; 130 interrupted.",
    )
    parser.add_argument("--json", action="store_true", help="write JSON lines")
    parser.add_argument(
        "--brief", action="store_true",
        help="before a command: write only problems that it would not tell itself, to standard "
        "error",
    )  # fmt: skip
    parser.add_argument(
        "--env-file", type=Path, default=Path(".env"), metavar="FILE",
        help="the file of settings (default: .env)",
    )  # fmt: skip
    parser.add_argument(
        "--only", action="append", default=[], choices=dict(CHECKS), metavar="CHECK",
        help=f"one of {', '.join(dict(CHECKS))}; may be repeated",
    )  # fmt: skip
    return parser


def _line(subject: Subject, name: str, finding: Finding, *, as_json: bool) -> str:
    application = subject.variables.get("APPLICATION", "").strip()
    if as_json:
        line = {"event": "check", "name": name, "verdict": finding.verdict}
        if application:
            line["application"] = application
        return json.dumps(line | {"sentence": finding.sentence, "remedy": finding.remedy})
    about = f"{application}: " if application else ""
    lines = [f"{finding.verdict:<8} {name:<9} {about}{finding.sentence}"]
    if finding.remedy:
        lines.append(f"{'':<18} {finding.remedy}")
    return "\n".join(map(console.printable, lines))


def _run() -> int:
    """Run it; output that is taken by nobody, or by a full disk, is no traceback."""
    try:
        return main()
    except OSError as error:
        console.discard_output()
        if not isinstance(error, BrokenPipeError):
            with suppress(OSError):
                print(f"The output cannot be written: {error.strerror}.", file=sys.stderr)
        return PROBLEM


if __name__ == "__main__":
    sys.exit(_run())
