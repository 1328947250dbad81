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
from shared.store.postgres.shapes import (
    FUNCTIONS,
    INDEXES,
    OLD_FUNCTION,
    OLD_TRIGGER,
    RECORD,
    TABLES,
    TIME,
    TRIGGERS,
    USERS,
    Column,
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

_NOW = "CURRENT_TIMESTAMP"
_IS_NOW = re.compile(
    r"((CURRENT|LOCAL)_?TIMESTAMP(\(\d\))?|(now|(transaction|statement|clock)_timestamp)\(\))"
    r"(::timestamp with(out)? time zone)?"
)
"""What is the same instant in a column with a zone and in one without it."""

# The functions are named with their schema, because the search path is what is asked for.
_SERVER = """
SELECT pg_catalog.json_build_object(
    'version', pg_catalog.current_setting('server_version_num'),
    'encoding', pg_catalog.current_setting('server_encoding'),
    'schema', pg_catalog.current_schema(),
    'search_path', pg_catalog.current_setting('search_path'),
    'path', pg_catalog.current_schemas(false),
    'path_source', (SELECT source FROM pg_catalog.pg_settings WHERE name = 'search_path'),
    'role', current_user,
    'database', pg_catalog.current_database(),
    'is_standby', pg_catalog.pg_is_in_recovery(),
    'is_read_only', pg_catalog.current_setting('default_transaction_read_only')
)
"""
_ASKED = "(SELECT json_array_elements_text(:{0}::json))"
_CATALOG = f"""
WITH here AS (SELECT oid FROM pg_namespace WHERE nspname = :schema),
users AS (
    SELECT c.oid FROM pg_class c JOIN here ON here.oid = c.relnamespace WHERE c.relname = 'users'
)
SELECT json_build_object(
'may_create', has_schema_privilege(:schema, 'CREATE'),
'has_plpgsql', (
    SELECT has_language_privilege(oid, 'USAGE') FROM pg_language WHERE lanname = 'plpgsql'
),
'relations', (
    SELECT coalesce(json_object_agg(c.relname, json_build_object(
        'kind', c.relkind,
        'is_logged', c.relpersistence = 'p',
        'is_owned', pg_has_role(c.relowner, 'USAGE'),
        'is_read', has_table_privilege(c.oid, 'SELECT'),
        'hides_rows', row_security_active(c.oid),
        'follows_users', EXISTS (
            SELECT FROM pg_constraint JOIN users ON users.oid = confrelid
            WHERE conrelid = c.oid AND contype = 'f' AND confdeltype = 'c' AND convalidated
        ),
        'has_parts', EXISTS (SELECT FROM pg_inherits WHERE c.oid IN (inhrelid, inhparent)),
        'rules', (
            SELECT coalesce(json_agg(rulename ORDER BY rulename), '[]') FROM pg_rewrite
            WHERE ev_class = c.oid AND rulename <> '_RETURN'
        ),
        'index', (
            SELECT json_build_object(
                'table', t.relname, 'unique', indisunique, 'valid', indisvalid,
                'definition', split_part(pg_get_indexdef(indexrelid), ' USING ', 2))
            FROM pg_index JOIN pg_class t ON t.oid = indrelid WHERE indexrelid = c.oid
        ),
        'columns', (
            SELECT coalesce(json_object_agg(attname, json_build_object(
                'type', format_type(atttypid, atttypmod),
                'is_nullable', NOT attnotnull,
                'has_default', atthasdef OR attidentity <> '',
                'default', pg_get_expr(adbin, adrelid),
                'is_generated', attgenerated <> '',
                'is_deterministic', coalesce(collisdeterministic, true)
                ) ORDER BY attnum), '{{}}')
            FROM pg_attribute LEFT JOIN pg_collation l ON l.oid = attcollation
            LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
            WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped
        ),
        'keys', (
            SELECT coalesce(json_agg(json_build_object(
                'columns', (
                    SELECT json_agg(attname ORDER BY attname) FROM pg_attribute
                    WHERE attrelid = c.oid AND attnum IN (
                        SELECT number FROM unnest(indkey::int2[]) WITH ORDINALITY k (number, n)
                        WHERE n <= indnkeyatts)),
                'is_immediate', indimmediate)), '[]')
            FROM pg_index i WHERE indrelid = c.oid AND indisunique AND indisvalid
                AND indpred IS NULL AND indexprs IS NULL
                AND NOT coalesce((to_jsonb(i)->>'indnullsnotdistinct')::boolean, false)
        ))), '{{}}')
    FROM pg_class c JOIN here ON here.oid = c.relnamespace
    WHERE c.relname IN {_ASKED.format("names")}
),
'types', (
    SELECT coalesce(json_agg(typname), '[]') FROM pg_type JOIN here ON here.oid = typnamespace
    WHERE typrelid = 0 AND (typname = 'email_key' OR typname IN {_ASKED.format("names")})
),
'elsewhere', (
    SELECT coalesce(
        json_agg(json_build_array(relname, nspname) ORDER BY relname DESC, nspname), '[]')
    FROM (
        SELECT c.relname, n.nspname FROM pg_class c
        JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid
        WHERE c.relkind IN ('r', 'p') AND n.nspname <> :schema AND n.nspname !~ '^pg_'
        AND NOT attisdropped AND (
            (c.relname = 'users' AND attname IN ('id', 'email', 'password', 'name', 'provider',
                'created_at', 'updated_at'))
            OR (c.relname = 'schema_migrations'
                AND attname IN ('version', 'name', 'checksum', 'applied_at')))
        GROUP BY 1, 2 HAVING count(*) = CASE c.relname WHEN 'users' THEN 7 ELSE 4 END
    ) found
),
'functions', (
    SELECT coalesce(json_agg(json_build_object(
        'name', proname,
        'schema', nspname,
        'signature', format('%I.%I(%s)', nspname, proname, oidvectortypes(proargtypes)),
        'is_ours', proargtypes = ''::oidvector OR proargtypes = '25'::oidvector,
        'source', prosrc,
        'is_owned', pg_has_role(proowner, 'USAGE'))
        ORDER BY proname, oidvectortypes(proargtypes)), '[]')
    FROM pg_proc JOIN pg_namespace n ON n.oid = pronamespace
    WHERE proname IN {_ASKED.format("functions")} AND nspname IN {_ASKED.format("path")}
    AND CASE proname WHEN 'email_key' THEN 1 BETWEEN pronargs - pronargdefaults AND pronargs
        ELSE pronargs = 0 END
),
'triggers', (
    SELECT coalesce(json_agg(json_build_object(
        'name', tgname, 'table', relname, 'schema', nspname, 'function', proname,
        'is_on', tgenabled IN ('O', 'A'))), '[]')
    FROM pg_trigger JOIN pg_class c ON c.oid = tgrelid JOIN here ON here.oid = relnamespace
    JOIN pg_proc p ON p.oid = tgfoid JOIN pg_namespace n ON n.oid = pronamespace
    WHERE NOT tgisinternal AND tgname IN {_ASKED.format("triggers")}
),
'dependents', (
    SELECT coalesce(json_agg(json_build_array(kind, identity, columns) ORDER BY identity), '[]')
    FROM (
        SELECT kind, identity, string_agg(DISTINCT attname, ' and ') AS columns FROM (
            SELECT attname, (pg_identify_object(
                CASE WHEN rulename = '_RETURN' OR classid = 'pg_attrdef'::regclass
                    THEN 'pg_class'::regclass ELSE classid END,
                CASE WHEN rulename = '_RETURN' THEN ev_class ELSE coalesce(f.adrelid, objid) END,
                coalesce(f.adnum, 0))).*
            FROM users JOIN pg_attribute ON attrelid = users.oid
            JOIN pg_depend d ON refclassid = 'pg_class'::regclass AND refobjid = attrelid
                AND refobjsubid = attnum
            LEFT JOIN pg_rewrite r ON classid = 'pg_rewrite'::regclass AND r.oid = objid
            LEFT JOIN pg_attrdef f ON classid = 'pg_attrdef'::regclass AND f.oid = objid
            LEFT JOIN pg_index i ON classid = 'pg_class'::regclass AND indexrelid = objid
            WHERE attname IN ('created_at', 'updated_at')
                AND atttypid = 'timestamp'::regtype AND NOT attisdropped
                AND (rulename = '_RETURN'
                    OR (classid = 'pg_attrdef'::regclass AND adnum <> attnum)
                    OR indexprs IS NOT NULL OR indpred IS NOT NULL
                    OR EXISTS (
                        SELECT FROM pg_opclass o WHERE o.oid = ANY (indclass::oid[])
                        AND opcintype = 'timestamp'::regtype AND NOT opcdefault)
                    OR (classid = 'pg_constraint'::regclass AND EXISTS (
                        SELECT FROM pg_depend p JOIN pg_proc ON pg_proc.oid = p.refobjid
                        WHERE (p.classid, p.objid) = (d.classid, d.objid)
                        AND p.refclassid = 'pg_proc'::regclass
                        AND 'timestamp'::regtype = ANY (proargtypes::oid[])))
                    OR classid IN ('pg_policy'::regclass, 'pg_trigger'::regclass,
                        'pg_proc'::regclass, 'pg_publication_rel'::regclass))
            UNION ALL
            SELECT 'the row type', (pg_identify_object(d.classid, d.objid, d.objsubid)).*
            FROM users JOIN pg_type t ON t.typrelid = users.oid
            JOIN pg_type made ON t.oid IN (made.oid, made.typelem, made.typbasetype)
            JOIN pg_depend d ON refclassid = 'pg_type'::regclass AND refobjid = made.oid
                AND classid = 'pg_class'::regclass AND objsubid > 0
            JOIN pg_class c ON c.oid = objid AND relkind IN ('r', 'm', 'p')
            WHERE EXISTS (
                SELECT FROM pg_attribute WHERE attrelid = users.oid AND NOT attisdropped
                AND attname IN ('created_at', 'updated_at') AND atttypid = 'timestamp'::regtype
            )
        ) found (attname, kind, in_schema, name, identity) GROUP BY 1, 2
    ) by_object
),
'zones', (
    SELECT coalesce(json_agg(DISTINCT zone), '[]') FROM (
        SELECT CASE WHEN source = 'client' THEN current_setting('log_timezone') ELSE reset_val END
        FROM pg_settings WHERE name = 'TimeZone'
        UNION ALL
        SELECT substr(setting, strpos(setting, '=') + 1)
        FROM pg_db_role_setting CROSS JOIN unnest(setconfig) setting
        WHERE setting ILIKE 'timezone=%' AND (setdatabase = 0 OR setdatabase = (
            SELECT oid FROM pg_database WHERE datname = current_database()
        )) AND (setrole = 0 OR EXISTS (
            SELECT FROM users WHERE has_table_privilege(setrole, users.oid, 'INSERT')
        ))
    ) found (zone)
))
"""
_RECORDED = "SELECT version FROM {}"
_HAS_TIMES = "SELECT EXISTS (SELECT FROM {} WHERE created_at IS NOT NULL OR updated_at IS NOT NULL)"
# A zone is what it does since there are servers like the old one, whatever it is called.
_IS_UTC = """
SELECT bool_and(t::timestamp = t AT TIME ZONE 'UTC') FROM generate_series(
    timestamptz '2009-01-01 00:00Z', CURRENT_TIMESTAMP + interval '1 year', interval '7 days') t
"""


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


def obstacles(connection: Connection) -> list[Obstacle]:
    """Look at the database, and give what was found: nothing where all is well.

    The connection must not be in a transaction. Raises StoreUnavailable and StoreFault.
    """
    connection.run_script("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
    try:
        return [*_look(connection)]
    finally:
        with suppress(ConnectionLost, StoreUnavailable, StoreFault):
            connection.run_script("ROLLBACK")


def require_clear(connection: Connection) -> None:
    """Raise StoreRefused with the sentences of every obstacle, if there is any."""
    if found := obstacles(connection):
        raise StoreRefused(cause=" ".join(map(str, found)).removesuffix("."))


def _look(connection: Connection) -> Iterator[Obstacle]:
    ((server,),) = connection.execute(_SERVER)
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
            f"CREATE SCHEMA … AUTHORIZATION {_quoted(server['role'])}, or GRANT USAGE, CREATE ON"
            f" SCHEMA public TO {_quoted(server['role'])}; its name belongs in ALTER ROLE … SET"
            " search_path or in options=-csearch_path=… in DATABASE_URL.",
        )
        return
    connection.run_script(
        "SET LOCAL search_path = pg_catalog; SET LOCAL quote_all_identifiers = off;"
        "SET LOCAL jit = off"  # To compile it takes seconds, where the catalog is large.
    )
    ((found,),) = connection.execute(
        _CATALOG,
        schema=schema,
        names=json.dumps([*TABLES, *INDEXES]),
        functions=json.dumps([*FUNCTIONS]),
        triggers=json.dumps([*TRIGGERS]),
        path=json.dumps(server["path"]),
    )
    yield from _Inspection(connection, server, found).obstacles()


class _Inspection:
    """What was found in the catalogs, and what is wrong with it."""

    def __init__(
        self, connection: Connection, server: dict[str, Any], found: dict[str, Any]
    ) -> None:
        self._connection = connection
        self._server = server
        self._schema: str = server["schema"]
        self._role = _quoted(server["role"])
        self._found = found
        self._relations: dict[str, Any] = found["relations"]
        self._recorded: set[int] = set()
        self._pending: set[int] = set()

    def obstacles(self) -> Iterator[Obstacle]:
        elsewhere = [*self._elsewhere()]
        yield from elsewhere
        if elsewhere:
            return
        record = [*self._record()]
        yield from record
        if record:
            return
        if RECORD in self._relations:
            rows = self._connection.execute(_RECORDED.format(self._name(RECORD)))
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
        if self._pending:
            yield from self._rights()
            yield from self._strangers()
        if 1 in self._pending and USERS in self._relations:
            yield from self._dependents()
            yield from self._zones()

    def _name(self, name: str) -> str:
        return f"{_quoted(self._schema)}.{_quoted(name)}"

    def _elsewhere(self) -> Iterator[Obstacle]:
        """Find the tables in another schema than the one in which new ones would be made."""
        is_chosen = self._server["path_source"] == "client"  # By the options of DATABASE_URL.
        if is_chosen or {USERS, RECORD} & self._relations.keys():
            return
        for name, found in self._found["elsewhere"][:1]:
            here, there = _quoted(self._schema), _quoted(found)
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
        differences = [*_foreign(relation, TABLES[RECORD], set())]
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
        foreign = [*_foreign(relation, table, self._pending, is_old=is_old)]
        if foreign:
            owner = "the old server's" if is_old else "this service's"
            yield Obstacle(
                f"table {name}",
                f"{name} is not {owner} table: {'; '.join(foreign)}.",
                "If it is another application's, rename one of the two, or give this service a"
                " schema of its own: see docs/DATABASE_SETUP.md, 7.",
            )
            return
        yield from self._misfits(name, relation, table, is_old=is_old)
        for rule in map(_quoted, relation["rules"]):
            yield Obstacle(
                f"rule {rule} on {name}",
                f"{name} has the rule {rule}, and what has rules takes no INSERT with ON CONFLICT"
                " and no change within a WITH.",
                f"DROP RULE {rule} ON {self._name(name)}; a trigger can do the same.",
            )

    def _misfits(
        self, name: str, relation: dict[str, Any], table: Table, *, is_old: bool = False
    ) -> Iterator[Obstacle]:
        for problem, remedy in _unfit(relation, table, is_old=is_old):
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

    def _rights(self) -> Iterator[Obstacle]:
        server = self._server
        if server["is_standby"] or server["is_read_only"] == "on":
            yield Obstacle(
                f"database {server['database']}",
                "Migrations are pending, and the server takes no writes: it is a standby, or"
                " default_transaction_read_only is on.",
                "Use the primary, or ALTER DATABASE … RESET default_transaction_read_only.",
                only_migrating=True,
            )
        if not self._found["may_create"]:
            yield Obstacle(
                f"schema {self._schema}",
                f"The role {server['role']} may not make tables in the schema {self._schema}.",
                f"GRANT USAGE, CREATE ON SCHEMA {_quoted(self._schema)} TO {self._role}.",
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
        if not self._pending.intersection(replaced):
            return
        is_here = function["schema"] == self._schema and function["is_ours"]
        is_hidden = function["schema"] != self._schema and function["is_ours"]
        is_old = name == OLD_FUNCTION and _TOUCHES.fullmatch(" ".join(function["source"].split()))
        if not is_hidden and not (is_here and replaced[0] not in self._pending) and not is_old:
            yield Obstacle(
                f"function {function['signature']}",
                f"The function {function['signature']} is not this service's, and others may"
                " need it as it is.",
                f"ALTER ROUTINE {function['signature']} RENAME TO …; its triggers follow.",
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
        if not self._connection.execute(_HAS_TIMES.format(self._name(USERS)))[0][0]:
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
        return None if self._connection.execute(_IS_UTC)[0][0] else str(name)


def _foreign(
    relation: dict[str, Any], table: Table, pending: set[int], *, is_old: bool = False
) -> Iterator[str]:
    """Say what tells that a table is somebody else's."""
    if relation["kind"] != "r" or relation["has_parts"]:
        yield "it is no ordinary table"
        return
    columns = relation["columns"]
    for name, column in table.columns.items():
        held = columns.get(name)
        if held is None:
            continue
        if not _is_of_kind(held["type"], column.type, is_old=is_old):
            yield f"{name} is {held['type']}, not {column.type}"
        elif held["is_generated"]:
            yield f"{name} is generated"
    missing = [
        name
        for name, column in table.columns.items()
        if name not in columns and column.since not in pending
    ]
    if missing:
        yield f"it has no column {', '.join(missing)}"


def _is_of_kind(held: str, wanted: str, *, is_old: bool) -> bool:
    """Tell whether a type is the wanted one, or can be made so without a loss."""
    if wanted.startswith("character varying"):
        return held.startswith("character") or held in ("text", "bpchar") or "citext" in held
    if wanted == TIME:
        held = re.sub(r"\(\d\)", "", held)
        return held == TIME or (is_old and held == "timestamp without time zone")
    return held == wanted


def _unfit(relation: dict[str, Any], table: Table, *, is_old: bool) -> Iterator[tuple[str, str]]:
    """Give what has to be mended of a table that is ours, and what ALTER TABLE does it."""
    if not relation["is_logged"]:
        yield "it is UNLOGGED, so that a crash of the server empties it", "SET LOGGED"
    for name, column in table.columns.items():
        held = relation["columns"].get(name)
        if held is not None:
            yield from _unfit_column(name, held, column, is_old=is_old)
    for name, held in relation["columns"].items():
        if name not in table.columns and not (
            held["is_nullable"] or held["has_default"] or held["is_generated"]
        ):
            name = _quoted(name)
            yield (
                f"{name} is NOT NULL and has no default, so that no row could be added",
                f"ALTER {name} DROP NOT NULL",
            )
    for number, columns in enumerate(table.keys):
        if not any(
            key["columns"] == sorted(columns) and (key["is_immediate"] or number)
            for key in relation["keys"]
        ):
            kind = "UNIQUE" if number else "PRIMARY KEY"
            listed = ", ".join(columns)
            yield f"it has no {kind.lower()} ({listed})", f"ADD {kind} ({listed})"
    if table.follows_users and not relation["follows_users"]:
        key = "FOREIGN KEY (user_id) REFERENCES users ON DELETE CASCADE"
        yield "its rows would stay when their user goes", f"ADD {key}"


def _unfit_column(
    name: str, held: dict[str, Any], column: Column, *, is_old: bool
) -> Iterator[tuple[str, str]]:
    if not _holds(held["type"], column.type, is_old=is_old):
        yield f"{name} is {held['type']}, not {column.type}", f"ALTER {name} TYPE {column.type}"
    if not held["is_deterministic"]:
        yield (
            f"{name} has a collation by which different texts are equal",
            f'ALTER {name} TYPE {column.type} COLLATE "default"',
        )
    if column.is_nullable and not held["is_nullable"]:
        yield f"{name} is NOT NULL", f"ALTER {name} DROP NOT NULL"
    elif held["is_nullable"] and not column.is_nullable:
        yield (
            f"{name} may be NULL",
            f"ALTER {name} SET NOT NULL; rows that have none need a value before, or go",
        )
    if column.default and not held["has_default"]:
        yield f"{name} has no default", f"ALTER {name} SET DEFAULT {column.default}"
    elif column.default == _NOW and not _IS_NOW.fullmatch(held["default"]):
        # One of UTC would be taken for the session's zone once the column has a zone.
        yield f"{name} has the default {held['default']}", f"ALTER {name} SET DEFAULT {_NOW}"


def _holds(held: str, wanted: str, *, is_old: bool) -> bool:
    """Tell whether a type, which is of the right kind, takes every value of the wanted one."""
    if wanted.startswith("character varying"):
        if held in ("text", "character varying"):
            return True
        width = re.fullmatch(r"character varying\((\d+)\)", held)
        return width is not None and int(width[1]) >= int(wanted[18:-1])
    return held == wanted or (is_old and wanted == TIME and "without" in held)


def _quoted(name: str) -> str:
    if re.fullmatch(r"[a-z_][a-z0-9_]*", name):
        return name
    return '"' + name.replace('"', '""') + '"'
