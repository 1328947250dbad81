"""Looks at a database before anything is changed in it, and says what stands in the way.

It only reads, from the system catalogs, in a transaction of its own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from shared.database import migrations
from shared.database.connection import Connection
from shared.database.faults import ConnectionLost
from shared.errors import StoreFault, StoreRefused, StoreUnavailable
from shared.store.postgres import catalog
from shared.store.postgres.fitting import foreign, quoted, unfit
from shared.store.postgres.shapes import (
    FUNCTIONS,
    INDEXES,
    OLD_FUNCTION,
    OLD_TRIGGER,
    RECORD,
    TABLES,
    TRIGGERS,
    USERS,
    Index,
    Table,
)

MIN_VERSION = 14
"""The oldest major version of PostgreSQL."""

RECORD_TABLE = f"table {RECORD}"

_TIMES = ("created_at", "updated_at")
_UTC = frozenset({"utc", "gmt", "etc/utc", "etc/gmt", "uct", "etc/uct", "zulu", "etc/zulu"})
_TOUCHES = re.compile(
    r"begin new\.updated_at :?= (current_timestamp|now\(\)); return new; end;?", re.IGNORECASE
)
"""What the old server's function says, and many another application's of that name."""


@dataclass(frozen=True, slots=True)
class Obstacle:
    """What stands in the way of a migration, or of serving requests."""

    object: str
    """Its kind and name, such as `table users`."""
    problem: str
    """What is wrong with it, in a sentence."""
    remedy: str
    """What to do, in a sentence."""
    only_migrating: bool = False
    """Whether it stands in the way of pending migrations alone."""

    def __str__(self) -> str:
        """Give both sentences."""
        return f"{self.problem} {self.remedy}"


def obstacles(connection: Connection, *, writing: bool = False) -> list[Obstacle]:
    """Look at the database, and give what was found: nothing where all is well.

    With `writing` a server that takes no writes is an obstacle, whether anything is pending or not.
    The connection must not be in a transaction. Raises StoreUnavailable and StoreFault.
    """
    connection.run_script("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
    try:
        return [*_look(connection, writing=writing)]
    finally:
        with suppress(ConnectionLost, StoreUnavailable, StoreFault):
            connection.run_script("ROLLBACK")


def require_clear(connection: Connection, *, writing: bool = False) -> None:
    """Raise StoreRefused with the sentences of every obstacle, if there is any."""
    if found := obstacles(connection, writing=writing):
        raise StoreRefused(cause=" ".join(map(str, found)).removesuffix("."))


def _look(connection: Connection, *, writing: bool) -> Iterator[Obstacle]:
    ((server,),) = connection.execute(catalog.SERVER)
    version = int(server["version"]) // 10_000
    if version < MIN_VERSION:
        yield Obstacle(
            "server",
            f"The server is PostgreSQL {version}, and {MIN_VERSION} is the oldest that is"
            " supported.",
            "Upgrade it.",
        )
        return
    if server["encoding"] != "UTF8":
        yield Obstacle(
            f"database {server['database']}",
            f"The database is encoded in {server['encoding']}, and must be in UTF8.",
            "Dump it, and restore it into a database made with ENCODING 'UTF8' TEMPLATE template0.",
        )
        return
    schema = server["schema"]
    if schema is None or schema.startswith("pg_"):
        yield Obstacle(
            "search path",
            f"The search path {server['search_path']} names no schema that tables can be made in"
            f" and the role {server['role']} may use.",
            f"CREATE SCHEMA … AUTHORIZATION {quoted(server['role'])}, or GRANT USAGE, CREATE ON"
            f" SCHEMA public TO {quoted(server['role'])}; its name belongs in ALTER ROLE … SET"
            " search_path or in options=-csearch_path=… in DATABASE_URL.",
        )
        return
    connection.run_script(
        "SET LOCAL search_path = pg_catalog; SET LOCAL quote_all_identifiers = off;"
        "SET LOCAL jit = off"  # To compile it takes seconds, where the catalog is large.
    )
    ((found,),) = connection.execute(
        catalog.OBJECTS,
        schema=schema,
        names=json.dumps([*TABLES, *INDEXES]),
        functions=json.dumps([*FUNCTIONS]),
        triggers=json.dumps([*TRIGGERS]),
        path=json.dumps(server["path"]),
    )
    yield from _Inspection(connection, server, found).obstacles(writing=writing)


class _Inspection:
    """What was found in the catalogs, and what is wrong with it."""

    def __init__(
        self, connection: Connection, server: dict[str, Any], found: dict[str, Any]
    ) -> None:
        self._connection = connection
        self._server = server
        self._schema: str = server["schema"]
        self._role = quoted(server["role"])
        self._found = found
        self._relations: dict[str, Any] = found["relations"]
        self._recorded: set[int] = set()
        self._pending: set[int] = set()

    def obstacles(self, *, writing: bool) -> Iterator[Obstacle]:
        elsewhere = [*self._elsewhere()]
        yield from elsewhere
        if elsewhere:
            return
        record = [*self._record()]
        yield from record
        if record:
            return
        if RECORD in self._relations:
            rows = self._connection.execute(catalog.RECORDED.format(self._name(RECORD)))
            self._recorded = {version for (version,) in rows}
        self._pending = {each.version for each in migrations.load()} - self._recorded
        for name, table in TABLES.items():
            if name == RECORD:
                continue
            unfit = [*self._table(name, table)]
            yield from unfit
            if not unfit:
                yield from self._indexes(name)
        yield from self._triggers()
        yield from self._row_security()
        if self._pending or writing:
            yield from self._taking_writes()
        if self._pending:
            yield from self._rights()
            yield from self._strangers()
        if 1 in self._pending and USERS in self._relations:
            yield from self._dependents()
            yield from self._zones()

    def _name(self, name: str) -> str:
        return f"{quoted(self._schema)}.{quoted(name)}"

    def _elsewhere(self) -> Iterator[Obstacle]:
        """Find the tables in another schema than the one in which new ones would be made."""
        is_chosen = self._server["path_source"] == "client"  # By the options of DATABASE_URL.
        if is_chosen or {USERS, RECORD} & self._relations.keys():
            return
        for name, found in self._found["elsewhere"][:1]:
            here, there = quoted(self._schema), quoted(found)
            yield Obstacle(
                f"table {there}.{name}",
                f"The tables would be made in the schema {here}, but {name} is in the schema"
                f" {there}.",
                f"Put options=-csearch_path={there} into DATABASE_URL to use that one (behind a"
                f" pooler, ALTER ROLE {self._role} SET search_path = {there}), or"
                f" options=-csearch_path={here} to begin without its users.",
            )

    def _record(self) -> Iterator[Obstacle]:
        relation = self._relations.get(RECORD)
        if relation is None:
            return
        differences = [*foreign(relation, TABLES[RECORD], set())]
        if differences:
            columns = ", ".join(f"{name} {it['type']}" for name, it in relation["columns"].items())
            yield Obstacle(
                RECORD_TABLE,
                f"{RECORD} in the schema {self._schema} is another tool's: its columns are"
                f" {columns}.",
                f"Give this service a schema of its own: CREATE SCHEMA auth AUTHORIZATION"
                f" {self._role}, and options=-csearch_path=auth in DATABASE_URL; see"
                " docs/DATABASE_SETUP.md, 7.",
            )
        elif not relation["is_read"]:
            yield Obstacle(
                RECORD_TABLE,
                f"The role {self._server['role']} may not read {RECORD}.",
                f"GRANT SELECT ON {self._name(RECORD)} TO {self._role}.",
            )
        else:
            yield from self._misfits(RECORD, relation, TABLES[RECORD])

    def _table(self, name: str, table: Table) -> Iterator[Obstacle]:
        relation = self._relations.get(name)
        if relation is None:
            if table.since in self._recorded:
                yield Obstacle(
                    f"table {name}",
                    f"The table {name} is missing in the schema {self._schema}, although its"
                    " migration was applied there.",
                    "Restore it from a backup.",
                )
            return
        is_old = name == USERS and 1 in self._pending
        differences = [*foreign(relation, table, self._recorded, is_old=is_old)]
        if differences:
            owner = "the old server's" if is_old else "this service's"
            yield Obstacle(
                f"table {name}",
                f"{name} is not {owner} table: {'; '.join(differences)}.",
                "If it is another application's, rename one of the two, or give this service a"
                " schema of its own: see docs/DATABASE_SETUP.md, 7.",
            )
            return
        yield from self._misfits(name, relation, table, is_old=is_old)
        for rule in map(quoted, relation["rules"]):
            yield Obstacle(
                f"rule {rule} on {name}",
                f"{name} has the rule {rule}, and what has rules takes no INSERT with ON CONFLICT"
                " and no change within a WITH.",
                f"DROP RULE {rule} ON {self._name(name)}; a trigger can do the same.",
            )

    def _misfits(
        self, name: str, relation: dict[str, Any], table: Table, *, is_old: bool = False
    ) -> Iterator[Obstacle]:
        for problem, remedy in unfit(relation, table, is_old=is_old):
            yield Obstacle(
                f"table {name}",
                f"{name} does not fit: {problem}.",
                f"ALTER TABLE {self._name(name)} {remedy}.",
            )

    def _indexes(self, table: str) -> Iterator[Obstacle]:
        for name, index in INDEXES.items():
            if index.table == table:
                yield from self._index(name, index)

    def _index(self, name: str, index: Index) -> Iterator[Obstacle]:
        relation = self._relations.get(name)
        held = relation["index"] if relation else None
        create = (
            f"CREATE{' UNIQUE' if index.is_unique else ''} INDEX {name} ON"
            f" {self._name(index.table)} USING {index.definition}"
        )
        if relation is None:
            # What is only for speed may be missing.
            if index.is_unique and index.since in self._recorded:
                yield Obstacle(f"index {name}", f"The index {name} is missing.", f"{create}.")
            return
        if index.is_unique:
            wanted = {"definition": index.definition, "unique": True, "valid": True}
            fits = held == wanted | {"table": index.table}
        else:
            fits = index.since in self._recorded or (held and held["table"] == index.table)
        if not fits:
            kind = "INDEX" if held else "TABLE"
            again = f", and {create}" if index.since in self._recorded else ""
            yield Obstacle(
                f"index {name}",
                f"{name} is not this service's index {index.definition} of {index.table}.",
                f"ALTER {kind} {self._name(name)} RENAME TO …{again}.",
            )

    def _triggers(self) -> Iterator[Obstacle]:
        """Find triggers that are gone or off, without which users come whom no login finds."""
        held = {(it["table"], it["name"]): it["is_on"] for it in self._found["triggers"]}
        files = {each.version: each.name for each in migrations.load()}
        for name, (since, table) in TRIGGERS.items():
            if name == OLD_TRIGGER or since not in self._recorded or held.get((table, name)):
                continue
            yield Obstacle(
                f"trigger {name}",
                f"The trigger {name} of {table} is"
                f" {'switched off' if (table, name) in held else 'missing'}.",
                f"ALTER TABLE {self._name(table)} ENABLE TRIGGER {name}."
                if (table, name) in held
                else f"Run its CREATE TRIGGER out of migrations/{files[since]} again.",
            )

    def _row_security(self) -> Iterator[Obstacle]:
        for name in TABLES:
            if name in self._relations and self._relations[name]["hides_rows"]:
                yield Obstacle(
                    f"table {name}",
                    f"Row security hides rows of {name} from the role {self._server['role']}.",
                    f"ALTER ROLE {self._role} BYPASSRLS, or ALTER TABLE {self._name(name)} DISABLE"
                    " ROW LEVEL SECURITY; for the table's owner NO FORCE ROW LEVEL SECURITY is"
                    " enough.",
                )

    def _taking_writes(self) -> Iterator[Obstacle]:
        server, pending = (
            self._server,
            "Migrations are pending, and the " if self._pending else "The ",
        )
        name = f"database {server['database']}"
        if server["is_standby"]:
            yield Obstacle(
                name,
                f"{pending}server takes no writes: it is a standby.",
                "Name the primary in DATABASE_URL.",
                only_migrating=True,
            )
        elif server["is_read_only"] == "on":
            yield Obstacle(
                name,
                f"{pending}{name} takes no writes: default_transaction_read_only is on.",
                f"ALTER DATABASE {quoted(server['database'])} RESET default_transaction_read_only,"
                f" and the same for the role {self._role}.",
                only_migrating=True,
            )

    def _rights(self) -> Iterator[Obstacle]:
        server = self._server
        if not self._found["may_create"]:
            yield Obstacle(
                f"schema {self._schema}",
                f"The role {server['role']} may not make tables in the schema {self._schema}.",
                f"GRANT USAGE, CREATE ON SCHEMA {quoted(self._schema)} TO {self._role}.",
                only_migrating=True,
            )
        if not self._found["has_plpgsql"]:
            yield Obstacle(
                "language plpgsql",
                f"The role {server['role']} cannot use the language plpgsql.",
                f"CREATE EXTENSION plpgsql, or GRANT USAGE ON LANGUAGE plpgsql TO {self._role}.",
                only_migrating=True,
            )
        for name in TABLES:
            if name in self._relations and not self._relations[name]["is_owned"]:
                yield Obstacle(
                    f"table {name}",
                    f"The role {server['role']} may not alter {name}, because it does not own it.",
                    f"ALTER TABLE {self._name(name)} OWNER TO {self._role}, or use its owner.",
                    only_migrating=True,
                )

    def _strangers(self) -> Iterator[Obstacle]:
        """Find what has a name that a pending migration takes or replaces."""
        for name in self._found["types"]:
            yield Obstacle(
                f"type {name}",
                f"A type has the name {name}, which a table, an index or a function needs.",
                f"ALTER TYPE {self._name(name)} RENAME TO ….",
                only_migrating=True,
            )
        for function in self._found["functions"]:
            yield from self._function(function)
        for trigger in self._found["triggers"]:
            since, table = TRIGGERS[trigger["name"]]
            is_old = trigger["name"] == OLD_TRIGGER and (
                (trigger["schema"], trigger["function"]) == (self._schema, OLD_FUNCTION)
            )
            if since in self._pending and trigger["table"] == table and not is_old:
                yield Obstacle(
                    f"trigger {trigger['name']}",
                    f"{table} has a trigger {trigger['name']} that is not this service's.",
                    f"ALTER TRIGGER {trigger['name']} ON {self._name(table)} RENAME TO ….",
                    only_migrating=True,
                )

    def _function(self, function: dict[str, Any]) -> Iterator[Obstacle]:
        name, replaced = function["name"], FUNCTIONS[function["name"]]
        pending = self._pending.intersection(replaced)
        if name == OLD_FUNCTION and "ai_coder.as_given" not in function["source"]:
            pending -= {9}  # It replaces what 0003 has made of it, and leaves another alone.
        if not pending or not (function["is_ours"] or replaced[0] in pending):
            return
        is_here = function["schema"] == self._schema and function["is_ours"]
        is_hidden = function["schema"] != self._schema and function["is_ours"]
        if not is_hidden and not (is_here and self._is_as_made(name, function["source"])):
            yield Obstacle(
                f"function {function['signature']}",
                f"The function {function['signature']} is not this service's, and others may"
                " need it as it is.",
                f"ALTER ROUTINE {function['signature']} RENAME TO …; its triggers follow."
                + self._made_again(name),
                only_migrating=True,
            )
        elif is_here and not function["is_owned"]:
            yield Obstacle(
                f"function {function['signature']}",
                f"The role {self._server['role']} may not replace the function"
                f" {function['signature']}, because it does not own it.",
                f"ALTER ROUTINE {function['signature']} OWNER TO {self._role}.",
                only_migrating=True,
            )

    def _is_as_made(self, name: str, source: str) -> bool:
        """Tell whether a function is what the last migration made of it, or the old server did."""
        source = " ".join(source.split())
        if name == OLD_FUNCTION and _TOUCHES.fullmatch(source):
            return True
        made = self._made(name)
        return bool(made) and source == " ".join(made[-1][1].split())

    def _made(self, name: str) -> list[tuple[str, str]]:
        """Give each file that has made a function here, and what stands between its dollars."""
        body = re.compile(rf"\bFUNCTION {name}\(.*?\$\$(.*?)\$\$", re.DOTALL)
        applied = [each for each in migrations.load() if each.version in self._recorded]
        return [(each.name, found) for each in applied for found in body.findall(each.sql)[-1:]]

    def _made_again(self, name: str) -> str:
        made = self._made(name)
        return f" Then run CREATE FUNCTION {name} out of migrations/{made[-1][0]}." if made else ""

    def _dependents(self) -> Iterator[Obstacle]:
        for kind, name, columns in self._found["dependents"]:
            yield Obstacle(
                f"{kind} {name}",
                f"The {kind} {name} depends on {columns} of users, whose times are to get a time"
                " zone.",
                "Drop it, migrate, and make it again; pg_dump keeps its definition.",
                only_migrating=True,
            )

    def _zones(self) -> Iterator[Obstacle]:
        """Find a time zone in which the old server may have written its times."""
        relation = self._relations[USERS]
        naive = [
            name
            for name in _TIMES
            if "without" in relation["columns"].get(name, {}).get("type", "")
        ]
        zones = [zone for name in self._found["zones"] if (zone := self._unless_utc(name))]
        if not naive or not zones or not relation["is_read"]:
            return
        if not self._connection.execute(catalog.HAS_TIMES.format(self._name(USERS)))[0][0]:
            return
        zone = zones[0]
        changes = ", ".join(
            f"ALTER {name} TYPE timestamptz USING {name} AT TIME ZONE '{zone}'" for name in naive
        )
        yield Obstacle(
            f"table {USERS}",
            f"The times of users have no time zone, and sessions are in {' or '.join(zones)},"
            " not in UTC, so that nobody can know which instants they are.",
            f"Say it: ALTER TABLE {self._name(USERS)} {changes}; or the same with 'UTC', if the old"
            " server wrote UTC.",
            only_migrating=True,
        )

    def _unless_utc(self, zone: str) -> str | None:
        """Give a zone, where it differs from UTC, as AT TIME ZONE understands it.

        A number of hours means one sign to SET and the other one there.
        """
        if zone.casefold() in _UTC:
            return None
        ((name,),) = self._connection.execute(
            "SELECT set_config('TimeZone', :zone, true)", zone=zone
        )
        return None if self._connection.execute(catalog.IS_UTC)[0][0] else str(name)
