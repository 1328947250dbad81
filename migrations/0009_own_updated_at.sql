-- users.updated_at by triggers of our own. The old server redefines update_updated_at_column() and its trigger
-- whenever it starts, and other applications have a function of that name too: nothing of ours hangs on it now.

-- What an import or a rollback gives is noted before any other trigger, and put back after all of them: they
-- fire in the order of their names. JSON writes a time in one way, whatever DateStyle is.
CREATE FUNCTION ai_coder_note_updated_at() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config(
        'ai_coder.updated_at', coalesce(to_json(NEW.updated_at) #>> '{}', ''), true
    );
    RETURN NEW;
END
$$;

CREATE FUNCTION ai_coder_set_updated_at() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('ai_coder.as_given', true) = 'on' THEN
        NEW.updated_at = nullif(current_setting('ai_coder.updated_at', true), '')::timestamptz;
    ELSE
        NEW.updated_at = CURRENT_TIMESTAMP;
    END IF;
    RETURN NEW;
END
$$;

CREATE TRIGGER ai_coder_note_updated_at BEFORE UPDATE ON users
    FOR EACH ROW WHEN (current_setting('ai_coder.as_given', true) = 'on')
    EXECUTE FUNCTION ai_coder_note_updated_at();
CREATE TRIGGER zz_ai_coder_updated_at BEFORE UPDATE ON users
    FOR EACH ROW EXECUTE FUNCTION ai_coder_set_updated_at();

DROP TRIGGER IF EXISTS update_users_updated_at ON users;

-- The function is the old server's again, for whoever else uses it.
DO $restore$
BEGIN
    IF EXISTS (
        SELECT FROM pg_proc WHERE oid = to_regprocedure('update_updated_at_column()')
        AND strpos(prosrc, 'ai_coder.as_given') > 0
    ) THEN
        CREATE OR REPLACE FUNCTION update_updated_at_column() RETURNS trigger
        LANGUAGE plpgsql AS $$
        BEGIN
            NEW.updated_at = CURRENT_TIMESTAMP;
            RETURN NEW;
        END;
        $$;
    END IF;
END
$restore$;

-- These two find what they need whatever the search path of whoever writes a row is.
DO $path$
DECLARE
    trigger_function text;
BEGIN
    FOREACH trigger_function IN ARRAY ARRAY['set_users_email_key()', 'mark_changed_hour()'] LOOP
        EXECUTE format(
            'ALTER FUNCTION %s SET search_path = %I, pg_temp', trigger_function, current_schema()
        );
    END LOOP;
END
$path$;

-- Characters that nobody sees and nobody types are no part of a key any more. Python makes these keys anew.
SET LOCAL ai_coder.as_given = 'on';
WITH unseen AS (
    SELECT id FROM users WHERE email_key <> btrim(translate(email_key,
        E'\u00ad\u034f\u061c\u180e\u200b\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\u2061\u2062'
        '\u2063\u2064\u2066\u2067\u2068\u2069\u206a\u206b\u206c\u206d\u206e\u206f\ufe0e\ufe0f\ufeff',
        ''), E'\u200c\u200d')
), noted AS (
    INSERT INTO pending_email_keys (user_id) SELECT id FROM unseen ON CONFLICT DO NOTHING
)
UPDATE users SET email_key = NULL FROM unseen WHERE users.id = unseen.id;
SET LOCAL ai_coder.as_given = 'off';
