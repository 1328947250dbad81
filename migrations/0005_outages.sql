-- What was accepted while this database was away, and whose the sessions were that have ended.

-- An operation has its row from the transaction that brought it or refused it, so that its COMMIT can
-- be looked for where the answer was lost, and nothing is brought twice.
CREATE TABLE IF NOT EXISTS applied_ops (
    operation UUID PRIMARY KEY,
    outcome TEXT NOT NULL,
    user_id UUID,
    applied_at TIMESTAMPTZ NOT NULL DEFAULT CURRENT_TIMESTAMP
);

-- So that an export can tell. It is null for a session that ended before there was this column.
ALTER TABLE revoked_sessions ADD COLUMN IF NOT EXISTS user_id UUID;
CREATE INDEX IF NOT EXISTS idx_revoked_sessions_user_id ON revoked_sessions (user_id);
