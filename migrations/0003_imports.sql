-- What each import brought, so that it can be verified, repeated and rolled back.

CREATE TABLE IF NOT EXISTS import_batches (
    number BIGINT PRIMARY KEY,
    id TEXT UNIQUE NOT NULL,
    plan_sha256 TEXT NOT NULL,
    source_sha256 TEXT NOT NULL,
    users_sha256 TEXT NOT NULL,
    counts JSONB NOT NULL,
    run_by TEXT NOT NULL,
    applied_at TIMESTAMPTZ NOT NULL DEFAULT CURRENT_TIMESTAMP,
    rolled_back_at TIMESTAMPTZ,
    rolled_back_by TEXT
);

-- One row for each user that a batch wrote: the digest of what it wrote, and what it replaced.
-- No foreign keys: they would double the time of an import, and a user may be deleted later.
CREATE TABLE IF NOT EXISTS import_records (
    user_id UUID NOT NULL,
    batch BIGINT NOT NULL,
    digest BYTEA NOT NULL,
    previous JSONB,
    PRIMARY KEY (user_id, batch)
);

-- An import and a rollback write rows as they are given, and say so in their own transaction; for
-- everyone else the triggers do what they did. One that is switched off would lock the table.
CREATE OR REPLACE FUNCTION update_updated_at_column() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('ai_coder.as_given', true) IS DISTINCT FROM 'on' THEN
        NEW.updated_at = CURRENT_TIMESTAMP;
    END IF;
    RETURN NEW;
END
$$;

CREATE OR REPLACE FUNCTION set_users_email_key() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('ai_coder.as_given', true) = 'on' THEN
        RETURN NEW;
    ELSIF TG_OP = 'INSERT' THEN
        NEW.email_key = coalesce(NEW.email_key, email_key(NEW.email));
    ELSIF NEW.email_key IS NOT DISTINCT FROM OLD.email_key AND NEW.email <> OLD.email THEN
        NEW.email_key = email_key(NEW.email);
    END IF;
    RETURN NEW;
END
$$;
