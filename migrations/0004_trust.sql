-- Who vouches for a user, which sessions have ended, who tried how often, and what became of it.

-- An identity is what a provider calls somebody, never an address (OpenID Connect Core, 5.7).
CREATE TABLE IF NOT EXISTS identities (
    issuer TEXT NOT NULL,
    subject TEXT NOT NULL,
    user_id UUID NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    created_at TIMESTAMPTZ NOT NULL DEFAULT CURRENT_TIMESTAMP,
    PRIMARY KEY (issuer, subject)
);
CREATE INDEX IF NOT EXISTS idx_identities_user_id ON identities (user_id);

-- A session that was logged out, until it would have ended anyway.
CREATE TABLE IF NOT EXISTS revoked_sessions (
    sid TEXT PRIMARY KEY,
    ends_at TIMESTAMPTZ NOT NULL
);
CREATE INDEX IF NOT EXISTS idx_revoked_sessions_ends_at ON revoked_sessions (ends_at);

-- How many attempts are left under a key until it expires. Keys hold hashes, no addresses.
-- A network from which a user has logged in is known for a while.
CREATE TABLE IF NOT EXISTS auth_attempts (
    key TEXT PRIMARY KEY,
    remaining INTEGER NOT NULL,
    expires_at TIMESTAMPTZ NOT NULL,
    known_until TIMESTAMPTZ NOT NULL DEFAULT '-infinity'
);
CREATE INDEX IF NOT EXISTS idx_auth_attempts_done ON auth_attempts (greatest(expires_at, known_until));

-- The audit. No foreign key: what happened to a user is kept after the user is gone. `actor` is, where
-- there was no user, the keyed hash of an address, or an administrator.
CREATE TABLE IF NOT EXISTS auth_events (
    id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    at TIMESTAMPTZ NOT NULL,
    kind TEXT NOT NULL,
    user_id UUID,
    actor TEXT,
    client TEXT
);
CREATE INDEX IF NOT EXISTS idx_auth_events_at ON auth_events (at);
CREATE INDEX IF NOT EXISTS idx_auth_events_user_id ON auth_events (user_id, at);
