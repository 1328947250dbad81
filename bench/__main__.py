"""`python -m bench`: measure the goals and print the table.

The exit status tells whether it could be measured, not whether a goal was met.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Sequence

from bench.goals import FULL, PARTS, QUICK, Bench
from bench.load import CannotMeasure
from bench.report import Measurement, table
from bench.servers import make_environment
from tests.support.postgres import USER, Server, running_postgres


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the goals named in the arguments, or all."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure the goals.")
    parser.add_argument("--only", choices=PARTS, metavar="NAME", help=", ".join(PARTS))
    parser.add_argument("--quick", action="store_true", help="few samples, to try it out")
    options = parser.parse_args(arguments)
    names = [options.only] if options.only else list(PARTS)
    try:
        make_environment()
        with running_postgres() as server:
            print(_machine(server), flush=True)
            measurements = _measure(server, names, quick=options.quick)
    except (CannotMeasure, OSError) as error:
        print(f"Could not measure: {error}", file=sys.stderr)
        return 1
    print(table(measurements))
    return 0


def _measure(server: Server, names: Sequence[str], *, quick: bool) -> list[Measurement]:
    server.run(f"CREATE DATABASE bench OWNER {USER}")
    bench = Bench(server, server.url("bench"), QUICK if quick else FULL)
    measurements = []
    for name in names:
        print(f"Measuring {name} …", file=sys.stderr, flush=True)
        measurements += PARTS[name](bench)
    return measurements


def _machine(server: Server) -> str:
    ((postgres,),) = server.run("SHOW server_version")
    busy, *_ = os.getloadavg()
    return (
        f"{os.cpu_count()} CPUs (load {busy:.2f} before), {platform.machine()}, "
        f"Python {platform.python_version()}, PostgreSQL {postgres}"
    )


if __name__ == "__main__":
    sys.exit(main())
