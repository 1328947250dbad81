"""`shared.doctor` in this process: what its checks find."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

from shared.doctor.checks import look_at
from shared.doctor.subject import Finding, Subject, Verdict
from tests.support.postgres import PASSWORD


def look(
    *names: str,
    path: Path = Path("/nowhere/.env"),
    clock: Callable[[], float] = time.time,
    **environment: str,
) -> list[Finding]:
    """Give what some checks find with these settings."""
    found = [finding for _, finding in look_at(Subject(environment, path, clock), names)]
    for finding in found:
        assert PASSWORD not in finding.sentence + finding.remedy
        assert re.search(r"[^.]\.$", finding.sentence), finding
        assert bool(finding.remedy) == (finding.verdict != "ok"), finding
    return found


def told(found: list[Finding], verdict: Verdict) -> list[str]:
    """Give sentence and remedy of what has the verdict."""
    return [f"{it.sentence} {it.remedy}" for it in found if it.verdict == verdict]
