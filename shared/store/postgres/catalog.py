"""What the look at a database asks: of the server, and of its catalogs."""

from __future__ import annotations

# The functions are named with their schema, because the search path is what is asked for.
SERVER = """
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
OBJECTS = f"""
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
RECORDED = "SELECT version FROM {}"
HAS_TIMES = "SELECT EXISTS (SELECT FROM {} WHERE created_at IS NOT NULL OR updated_at IS NOT NULL)"
# A zone is what it does since there are servers like the old one, whatever it is called.
IS_UTC = """
SELECT bool_and(t::timestamp = t AT TIME ZONE 'UTC') FROM generate_series(
    timestamptz '2009-01-01 00:00Z', CURRENT_TIMESTAMP + interval '1 year', interval '7 days') t
"""
