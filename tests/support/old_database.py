"""The old server's schema, and rows as it leaves them."""

from __future__ import annotations

OLD_DDL = """
CREATE TABLE IF NOT EXISTS users (
    id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    email VARCHAR(255) UNIQUE NOT NULL,
    password VARCHAR(255),
    name VARCHAR(255),
    provider VARCHAR(50) DEFAULT 'local',
    created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
    updated_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP
);
CREATE INDEX IF NOT EXISTS idx_users_email ON users(email);
CREATE INDEX IF NOT EXISTS idx_users_provider ON users(provider);
CREATE INDEX IF NOT EXISTS idx_users_created_at ON users(created_at);
CREATE OR REPLACE FUNCTION update_updated_at_column()
RETURNS TRIGGER AS $$
BEGIN
    NEW.updated_at = CURRENT_TIMESTAMP;
    RETURN NEW;
END;
$$ language 'plpgsql';
DROP TRIGGER IF EXISTS update_users_updated_at ON users;
CREATE TRIGGER update_users_updated_at
    BEFORE UPDATE ON users
    FOR EACH ROW
    EXECUTE FUNCTION update_updated_at_column();
CREATE TABLE session (sid varchar NOT NULL PRIMARY KEY, sess json NOT NULL,
    expire timestamp(6) NOT NULL);
"""
"""Word for word what the old server runs when it starts."""
HASH = "$2a$04$I4g04u7F8Wua/g5BpF5GxOoCGTtIXSuyACCKNlQcYIOdCrmzdT7Oa"
OLD_ROWS = f"""
INSERT INTO users (id, email, password, name, provider, created_at, updated_at) VALUES
    ('00000000-0000-4000-8000-000000000001', 'Grace.Hopper@Example.COM', '{HASH}', 'Grace',
     'local', '2025-06-12 17:54:12.758001', '2025-06-12 17:54:12.76'),
    ('00000000-0000-4000-8000-000000000002', 'Ada@example.com', '{HASH}', NULL, 'local',
     '2024-01-01', '2024-01-01'),
    ('00000000-0000-4000-8000-000000000003', 'ada@example.com', '{HASH}', NULL, 'local',
     '2025-01-01', '2025-01-01'),
    ('00000000-0000-4000-8000-000000000004', 'ÜMLAUT@Example.de', '{HASH}', 'Jörg', 'local',
     '2025-01-01', '2025-01-01'),
    ('00000000-0000-4000-8000-000000000005', 'google@example.com', NULL, NULL, 'google',
     NULL, NULL),
    ('00000000-0000-4000-8000-000000000006', 'Eve@example.com', NULL, NULL, 'local', NULL, NULL),
    ('00000000-0000-4000-8000-000000000007', 'EVE@example.com', NULL, NULL, 'local',
     '2025-01-01', NULL);
INSERT INTO session VALUES ('sid', '{{"userId": "x"}}', now());
"""
