"""Import after export, and export after import, give back what was there."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.model.emails import email_key
from shared.model.users import MAX_EPOCH
from tests.support.postgres import Server
from tests.support.transfers import HASH, Target

LONG_HASH = f"$bcrypt-sha256$v=2,t=2b,r=12${'a' * 22}${'b' * 31}"
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40)
LOCAL_PART = st.text(
    st.characters(
        codec="utf-8", exclude_categories=["Cc", "Cs", "Zs", "Zl", "Zp"], exclude_characters="@"
    ),
    min_size=1,
    max_size=20,
)
ISSUER = st.sampled_from(["https://accounts.google.com", "https://securetoken.google.com/project"])
IDENTITIES = st.lists(st.tuples(ISSUER, TEXT.filter(bool)), max_size=3)
DOMAIN = st.sampled_from(["example.com", "EXAMPLE.org", "bücher.example", "xn--bcher-kva.example"])
MOMENT = st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1)).map(  # noqa: DTZ001  # UTC below
    lambda moment: moment.replace(tzinfo=UTC)
)


def _iso(moment: datetime | None) -> str | None:
    """Write milliseconds, or microseconds where there are any."""
    if moment is None:
        return None
    precision = "microseconds" if moment.microsecond % 1000 else "milliseconds"
    return moment.isoformat(timespec=precision).replace("+00:00", "Z")


@st.composite
def canonical_users(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Draw users as an export writes them: oldest first, no two with one id or one key."""
    moments = draw(st.lists(st.none() | MOMENT, max_size=6))
    moments.sort(key=lambda moment: (moment is None, moment or datetime.now(UTC)))
    ids = sorted(draw(st.sets(st.uuids(), min_size=len(moments), max_size=len(moments))), key=str)
    users, keys, taken = [], set(), set()
    for user_id, created in zip(ids, moments, strict=True):
        email = draw(LOCAL_PART) + "@" + draw(DOMAIN)
        provider = draw(st.sampled_from(["local", "google", "firebase-google", None]))
        has_password = provider in ("local", None) or draw(st.booleans())
        password = draw(st.sampled_from([HASH, LONG_HASH])) if has_password else None
        name = draw(st.none() | TEXT)
        identities = [pair for pair in dict.fromkeys(draw(IDENTITIES)) if pair not in taken]
        entries = [{"issuer": issuer, "subject": subject} for issuer, subject in identities]
        own = [("provider", provider), ("name", name)]
        members = [
            ("id", str(user_id)),
            ("email", email),
            *([("password", password), *own] if has_password else own[::-1]),
            ("createdAt", _iso(created)),
            ("updatedAt", _iso(draw(st.none() | MOMENT))),
            ("identities", entries or None),
            ("epoch", draw(st.sampled_from([None, 1, MAX_EPOCH]))),
        ]
        if email_key(email) not in keys:
            keys.add(email_key(email))
            taken.update(identities)
            users.append({name: value for name, value in members if value is not None})
    return users


@pytest.fixture(scope="module")
def targets(postgres: Server, make_database: Callable[..., str]) -> list[Target]:
    return [Target(postgres, make_database()) for _ in range(2)]


def _clear(target: Target) -> Target:
    target.run("TRUNCATE users, identities, import_batches, import_records")
    return target


def _file(users: list[dict[str, Any]]) -> bytes:
    return json.dumps(users, indent=2, ensure_ascii=False).encode()


EXAMPLES = pytest.mark.parametrize("count", [8, pytest.param(300, marks=pytest.mark.long)])


@EXAMPLES
def test_exporting_what_was_imported_gives_the_file_and_importing_that_the_database(
    targets: list[Target], count: int
) -> None:
    @settings(max_examples=count)
    @given(users=canonical_users())
    def goes_round(users: list[dict[str, Any]]) -> None:
        first, second = map(_clear, targets)
        first.apply(_file(users))
        exported = first.export()
        assert exported == _file(users)
        second.apply(exported)
        assert second.users() == first.users()
        assert second.identities() == first.identities()

    goes_round()


@EXAMPLES
def test_however_a_file_writes_its_users_they_are_the_same(
    targets: list[Target], count: int
) -> None:
    @settings(max_examples=count)
    @given(users=canonical_users(), data=st.data())
    def is_the_same(users: list[dict[str, Any]], data: st.DataObject) -> None:
        target = _clear(targets[0])
        target.apply(_respelled(users, data))
        assert target.export() == _file(users)

    is_the_same()


def _respelled(users: list[dict[str, Any]], data: st.DataObject) -> bytes:
    """Write the same users as another program might."""
    rows = []
    for user in users:
        row = dict(user)
        for camel, snake in (("createdAt", "created_at"), ("updatedAt", "updated_at")):
            if camel in row:
                moment = datetime.fromisoformat(row.pop(camel))
                name = data.draw(st.sampled_from([camel, snake]))
                row[name] = data.draw(st.sampled_from(_spellings(moment)))
            elif data.draw(st.booleans()):
                row[camel] = None
        if "identities" in row:
            row["identities"] = [dict(reversed(entry.items())) for entry in row["identities"]]
        elif data.draw(st.booleans()):
            row["identities"] = data.draw(st.sampled_from([None, []]))
        row["id"] = data.draw(st.sampled_from([row["id"], row["id"].upper()]))
        order = data.draw(st.permutations(list(row)))
        rows.append({name: row[name] for name in order})
    form = data.draw(st.sampled_from(["array", "wrapped", "lines"]))
    if form == "lines" and rows:
        return "\n".join(json.dumps(row) for row in rows).encode()
    return json.dumps({"users": rows} if form == "wrapped" else rows).encode()


def _spellings(moment: datetime) -> list[Any]:
    spellings: list[Any] = [
        moment.astimezone(timezone(timedelta(hours=hours, minutes=minutes))).isoformat()
        for hours, minutes in ((0, 0), (5, 30), (-3, -30), (14, 0))
    ]
    spellings.append(moment.isoformat().replace("T", " ").replace("+00:00", "z"))
    spellings.append(moment.isoformat(timespec="microseconds").replace("+00:00", "999Z"))
    if moment.microsecond % 1000 == 0:
        spellings.append((moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1))
    return spellings
