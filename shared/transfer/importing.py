"""Plans, applies and verifies an import: one pass over the source, one transaction."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from shared.database.connection import Connection
from shared.database.pool import Database
from shared.errors import PlanOutdated, RowsRejected, StoreFault, TransferRefused
from shared.formats.counts import count
from shared.model.user_record import (
    MEMBERS,
    InvalidRow,
    UserRecord,
    digest,
    parse,
    pending_operation,
    revoked_sessions,
)
from shared.transfer import access, batches, losses, refusals, staging, writing
from shared.transfer.comparing import BATCH_ROWS, Comparison
from shared.transfer.sources import Rows
from shared.transfer.steps import Event, Outcome, Progress, Ready, commit, timestamp, transaction
from shared.transfer.time_doubts import TimeDoubts

BATCH_BYTES = 256 * 1024
"""How much is sent to the database at once."""
FEW_ADDRESSES = 3
"""How many users of another system may change their addresses without a question."""
MAX_UNKNOWN_MEMBERS, MAX_SHOWN_LENGTH = 20, 40
"""How many odd names are counted, and how many characters of one are told."""
OUTDATED = "The source or the database has changed since the plan was made: nothing was written."

DIFFERING = (staging.NEW, staging.CHANGED, staging.ALTERED, staging.DELETED)
"""The verdicts of rows that Postgres should hold as the source does, and doesn't."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What became, or would become, of each row of a source."""

    sha256: str
    source_sha256: str
    users_sha256: str
    rows: int
    counts: dict[str, int]
    absent: int
    """Users of earlier imports whom the source no longer has; they stay."""
    unknown_members: dict[str, int]
    """Names that no column has, and in how many rows; they stay behind."""
    doubtful_times: dict[str, dict[str, int]]
    """Of rows whose times the source can hardly mean, how many `rows` and the `first` of them."""
    losses: dict[str, dict[str, Any]]
    """What changed users have and the source lacks, or another address: `rows` and `examples`."""
    without_password: int
    """Users who come without a password or an identity of a provider, and to whom mail helps."""
    system: str | None
    """The other system whose file it is."""
    stayed: int
    """Rows of users who stay behind as a whole."""
    left_behind: dict[str, dict[str, Any]]
    """Why they, or something of others, stay behind: how many `rows`, and `examples` of them."""

    def to_json(self) -> dict[str, object]:
        """Give its members, the digest under the name of the option that takes it."""
        members = asdict(self)
        return {"plan": members.pop("sha256")} | members

    @property
    def rejected(self) -> int:
        """The number of rows that cannot be imported."""
        return sum(self.counts[verdict] for verdict in staging.REJECTED)

    @property
    def differing(self) -> int:
        """How many users Postgres should hold as the source does, and doesn't."""
        return sum(self.counts[verdict] for verdict in DIFFERING)

    @property
    def to_write(self) -> int:
        """How many users would be written."""
        return self.counts[staging.NEW] + self.counts[staging.CHANGED]

    def refuse_changed_addresses(self) -> None:
        """Raise TransferRefused where the users changed seem to be others with the same ids."""
        changed = self.losses.get(losses.ADDRESS, {"rows": 0})["rows"]
        if changed > FEW_ADDRESSES and changed * 10 > self.counts[staging.CHANGED]:
            raise TransferRefused(
                f"{changed:,} of {count(self.counts[staging.CHANGED], 'changed user')} would get "
                "another address, so the file may be another installation's, whose users have the "
                "same ids: give it a name of its own with --instance. If they are the same people, "
                "say --addresses-changed. Nothing was changed."
            )

    def require_users(self) -> None:
        """Raise RowsRejected where there are rows, and none of them is a valid user."""
        if self.rows and self.counts[staging.INVALID] + self.stayed == self.rows:
            raise RowsRejected(f"No row of {self.rows} is a valid user: is this a file of users?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """The end of an apply. `batch` is None where there was nothing to write."""

    plan: Plan
    batch: str | None
    revoked_sessions: int
    """How many sessions were logged out here because they were in the source."""


_Row = tuple[UserRecord, bytes, dict[str, Any]]
"""A valid row of a source: what it says of a user, the digest of that, and the row itself."""

_NOTEWORTHY = (*staging.REJECTED, staging.KEPT, staging.ALTERED, staging.DELETED)


def new_batch_id(now: float) -> str:
    """Name a batch. The client does, so that it can ask for it when a COMMIT's answer is lost."""
    return f"{timestamp(now)}-{secrets.token_hex(4)}"


def plan(database: Database, source: Rows) -> Generator[Event, None, Plan]:
    """Tell what an apply would do, in a read-only transaction.

    Raises InvalidSource, StoreUnavailable and OSError.
    """
    told = (*_NOTEWORTHY, staging.CHANGED)
    return (yield from _compare(database, source, told, foresee=True))


def apply(
    database: Database,
    source: Rows,
    *,
    batch_id: str,
    run_by: str,
    plan_sha256: str | None = None,
    skip_invalid: bool = False,
    addresses_changed: bool = False,
    report: Callable[[bytes], object] | None = None,
) -> Generator[Event, None, Applied]:
    """Bring what is new or changed, in one transaction that is proven before it is committed.

    `report` is given what became of every row, as JSON lines, before the COMMIT.
    Raises RowsRejected, PlanOutdated, TransferRefused, InvalidSource, StoreUnavailable and
    OSError: after each of them the database is as it was.
    """
    with transaction(database, write=access.IMPORT) as connection:
        found = yield from _examine(connection, source)
        if plan_sha256 not in (None, found.sha256):
            raise PlanOutdated(OUTDATED)
        if not addresses_changed:
            found.refuse_changed_addresses()
        number = 0
        if found.to_write and (skip_invalid or not found.rejected):
            yield Progress("write", found.rows)
            number, counts = _write(connection, found)
            found = replace(found, counts=counts)
        told = [verdict for verdict in _NOTEWORTHY if found.counts[verdict]]
        yield from _outcomes(partial(_staged, connection), told)
        found.require_users()
        if found.rejected and not skip_invalid:
            raise RowsRejected(
                f"{found.rejected:,} of {count(found.rows, 'row')} cannot be imported, so nothing "
                "was written: fix what is wrong, or skip with `skip_invalid`."
            )
        revoked, sid = writing.revoke_sessions(connection)
        writing.resolve_operations(connection)
        if not found.to_write:
            if revoked:
                yield Ready()
                commit(database, connection, lambda fresh: writing.is_revoked(fresh, sid))
            return Applied(plan=found, batch=None, revoked_sessions=revoked)
        yield Progress("verify", found.rows)
        _prove(connection, found)
        writing.record_batch(
            connection,
            number,
            batch_id,
            found=found.counts,
            plan_sha256=found.sha256,
            source_sha256=found.source_sha256,
            users_sha256=found.users_sha256,
            run_by=run_by,
        )
        if report is not None:
            for lines in staging.report_lines(connection):
                report(lines)
        yield Ready(writing.ended(connection, number) if found.counts[staging.CHANGED] else ())
        commit(database, connection, lambda fresh: batches.find(fresh, batch_id) is not None)
    return Applied(plan=found, batch=batch_id, revoked_sessions=revoked)


def verify(database: Database, source: Rows) -> Generator[Event, None, Plan]:
    """Compare the source with Postgres again, and name every row that differs.

    The result's counts tell how many: those of `DIFFERING` should not be, KEPT users have changed
    in Postgres later and rightly. Raises as `plan`.
    """
    told = [verdict for verdict in staging.VERDICTS if verdict != staging.IDENTICAL]
    return (yield from _compare(database, source, told))


class _Totals:
    """What is told of a source as a whole, beside what became of its rows."""

    def __init__(self) -> None:
        self._digests = hashlib.sha256()
        self._doubts = TimeDoubts(time.time())
        self._unknown: Counter[str] = Counter()
        self._rows = 0
        self._without_password = 0

    def read(self, source: Rows) -> Iterator[_Row | InvalidRow]:
        """Give each row, or what is wrong with it."""
        for row in source.rows():
            self._rows += 1
            found: _Row | InvalidRow
            try:
                record = parse(row)
                row_digest = digest(record)
            except InvalidRow as error:
                found = error
            else:
                found = record, row_digest, row
                self._digests.update(row_digest)
                self._doubts.look_at(source.rows_read, row, record)
                if record.password is None and record.provider in (None, "local"):
                    self._without_password += 1
            if isinstance(row, dict) and not MEMBERS.issuperset(row):
                _count_unknown(self._unknown, row)
            yield found

    def plan(
        self,
        source: Rows,
        *,
        decisions_sha256: str,
        counts: dict[str, int],
        absent: int,
        losses: dict[str, dict[str, Any]],
    ) -> Plan:
        """Give the plan of the source, which was read to its end."""
        decided = f"plan 1 {source.sha256} {decisions_sha256}"
        return Plan(
            sha256=hashlib.sha256(decided.encode()).hexdigest(),
            source_sha256=source.sha256,
            users_sha256=self._digests.hexdigest(),
            rows=self._rows + source.stayed,
            counts=counts,
            absent=absent,
            unknown_members=dict(self._unknown),
            doubtful_times=self._doubts.found,
            losses=losses,
            without_password=self._without_password,
            system=source.system,
            stayed=source.stayed,
            left_behind=source.left_behind,
        )


def _compare(
    database: Database, source: Rows, told: Sequence[str], *, foresee: bool = False
) -> Generator[Event, None, Plan]:
    """Give each row its verdict by reading alone, and name those with one of the verdicts."""
    totals = _Totals()
    with transaction(database, write=None, foresee=foresee) as connection:
        comparison = Comparison(connection)
        for found in totals.read(source):
            if isinstance(found, InvalidRow):
                comparison.add_invalid(source.rows_read, str(found))
            else:
                record, row_digest, row = found
                comparison.add(source.rows_read, record, row_digest, pending_operation(row))
            if source.rows_read % BATCH_ROWS == 0:
                yield Progress("read", source.rows_read, source.bytes_read)
        yield Progress("compare", source.rows_read, source.bytes_read)
        comparison.finish()
        plan = totals.plan(
            source,
            decisions_sha256=comparison.decisions_sha256(),
            counts=comparison.counts(),
            absent=comparison.absent(),
            losses=comparison.losses(),
        )
        yield from _outcomes(comparison.report, told)
    return plan


def _examine(connection: Connection, source: Rows) -> Generator[Event, None, Plan]:
    """Stage the source, keep other imports away, and give each row its verdict."""
    totals = _Totals()
    yield from _stage(connection, source, totals)
    yield Progress("compare", source.rows_read, source.bytes_read)
    # Not earlier, or a source that arrives slowly would keep everyone waiting.
    staging.lock(connection)
    staging.classify(connection)
    counts = staging.counts(connection)
    return totals.plan(
        source,
        decisions_sha256=staging.decisions_sha256(connection, counts),
        counts=counts,
        absent=staging.absent(connection),
        losses=losses.staged(connection) if counts[staging.CHANGED] else {},
    )


def _stage(connection: Connection, source: Rows, totals: _Totals) -> Generator[Event, None, None]:
    """Send the rows to the staging table."""
    lines: list[bytes] = []
    size = 0
    with staging.fill(connection) as send:
        for found in totals.read(source):
            if isinstance(found, InvalidRow):
                line = staging.invalid_line(source.rows_read, str(found))
            else:
                record, row_digest, row = found
                revoked, operation = revoked_sessions(row), pending_operation(row)
                line = staging.staged_line(source.rows_read, record, row_digest, revoked, operation)
            lines.append(encoded := line.encode())
            size += len(encoded)
            if size > BATCH_BYTES:
                send(b"".join(lines))
                lines, size = [], 0
                yield Progress("read", source.rows_read, source.bytes_read)
        send(b"".join(lines))
    yield Progress("read", source.rows_read, source.bytes_read)


def _count_unknown(unknown: Counter[str], row: dict[str, object]) -> None:
    for name in row.keys() - MEMBERS:
        shown = name[:MAX_SHOWN_LENGTH]
        if shown in unknown or len(unknown) < MAX_UNKNOWN_MEMBERS:
            unknown[shown] += 1


def _outcomes(
    report: Callable[[Sequence[str]], Iterator[Outcome]], verdicts: Sequence[str]
) -> Iterator[Outcome]:
    """Give those of the verdicts by row, those that reject one first."""
    rejected = [verdict for verdict in verdicts if verdict in staging.REJECTED]
    for some in rejected, [verdict for verdict in verdicts if verdict not in staging.REJECTED]:
        if some:
            yield from report(some)


def _staged(connection: Connection, verdicts: Sequence[str]) -> Iterator[Outcome]:
    for row in staging.report(connection, verdicts):
        yield Outcome(*row)


def _write(connection: Connection, found: Plan) -> tuple[int, dict[str, int]]:
    connection.run_script("SAVEPOINT written")
    try:
        return writing.write(connection, found.counts)
    except StoreFault as fault:
        connection.run_script("ROLLBACK TO written")
        raise refusals.explain(connection, fault) from fault


def _prove(connection: Connection, found: Plan) -> None:
    """Compare what was read with what arrived, and what is to be held with what is held."""
    many = found.to_write >= writing.INDEX_LATER_ROWS
    changed = found.counts[staging.CHANGED] > 0
    if staging.arrived_sha256(connection) != found.users_sha256:
        raise TransferRefused(
            "Verification failed: the rows that arrived differ from the source. Nothing was "
            "changed."
        )
    if not writing.holds_all(connection, many=many, changed=changed):
        unlike = writing.first_unlike(connection)
        where = f"row {unlike[0]} (user {unlike[1]})" if unlike else "a row"
        raise TransferRefused(
            f"Verification failed: {where} differs from the source; a trigger or rule of the "
            "table changes it or keeps it out. Nothing was changed."
        )
