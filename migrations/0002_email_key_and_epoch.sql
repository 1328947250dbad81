-- The key under which an address is unique, and the epoch that ends all sessions of a user.
-- Both only expand the table, so that the old server's statements go on working.

ALTER TABLE users ADD COLUMN IF NOT EXISTS email_key TEXT;
ALTER TABLE users ADD COLUMN IF NOT EXISTS epoch INTEGER NOT NULL DEFAULT 0;

-- What shared/emails.py makes, as far as SQL can: it is used only for rows that the old server
-- wrote. The functions write the key themselves.
CREATE OR REPLACE FUNCTION email_key(address TEXT) RETURNS TEXT
LANGUAGE sql IMMUTABLE STRICT AS $$
    SELECT normalize(lower(normalize(btrim(address, E' \t\n\r\f\v'), NFC)), NFC)
$$;

-- Of rows that differ only in spelling one gets the key: the one in lower case, because no other
-- could ever log in on the old server, else the oldest. The others are kept without a key.
ALTER TABLE users DISABLE TRIGGER update_users_updated_at;
UPDATE users SET email_key = email_key(email)
WHERE email_key IS NULL
  AND id IN (
    SELECT DISTINCT ON (email_key(email)) id FROM users
    ORDER BY email_key(email), email = email_key(email) DESC, created_at, id
  );
ALTER TABLE users ENABLE TRIGGER update_users_updated_at;

CREATE UNIQUE INDEX IF NOT EXISTS idx_users_email_key ON users (email_key);

CREATE OR REPLACE FUNCTION set_users_email_key() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        NEW.email_key = coalesce(NEW.email_key, email_key(NEW.email));
    ELSIF NEW.email_key IS NOT DISTINCT FROM OLD.email_key AND NEW.email <> OLD.email THEN
        NEW.email_key = email_key(NEW.email);
    END IF;
    RETURN NEW;
END
$$;

DROP TRIGGER IF EXISTS set_users_email_key ON users;
CREATE TRIGGER set_users_email_key BEFORE INSERT OR UPDATE OF email ON users
    FOR EACH ROW EXECUTE FUNCTION set_users_email_key();
