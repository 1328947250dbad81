-- The users table of the old system, column for column. A database that the old server made is
-- adopted as it stands, with every row; only its time stamps learn their time zone.

CREATE TABLE IF NOT EXISTS users (
    id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    email VARCHAR(255) UNIQUE NOT NULL,
    password VARCHAR(255),
    name VARCHAR(255),
    provider VARCHAR(50) DEFAULT 'local',
    created_at TIMESTAMPTZ DEFAULT CURRENT_TIMESTAMP,
    updated_at TIMESTAMPTZ DEFAULT CURRENT_TIMESTAMP
);

-- The old server wrote TIMESTAMP without a zone, in UTC. With the session in UTC, PostgreSQL
-- changes the type without rewriting the table.
SET LOCAL timezone = 'UTC';
DO $$
DECLARE
    old_column text;
BEGIN
    FOR old_column IN
        SELECT attname FROM pg_attribute
        WHERE attrelid = 'users'::regclass
          AND attname IN ('created_at', 'updated_at')
          AND atttypid = 'timestamp'::regtype
    LOOP
        EXECUTE format('ALTER TABLE users ALTER COLUMN %I TYPE timestamptz', old_column);
    END LOOP;
END
$$;

CREATE INDEX IF NOT EXISTS idx_users_email ON users (email);
CREATE INDEX IF NOT EXISTS idx_users_provider ON users (provider);
CREATE INDEX IF NOT EXISTS idx_users_created_at ON users (created_at);

CREATE OR REPLACE FUNCTION update_updated_at_column() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    NEW.updated_at = CURRENT_TIMESTAMP;
    RETURN NEW;
END
$$;

DROP TRIGGER IF EXISTS update_users_updated_at ON users;
CREATE TRIGGER update_users_updated_at BEFORE UPDATE ON users
    FOR EACH ROW EXECUTE FUNCTION update_updated_at_column();
