-- What users from other systems bring along: claims, a JSON object of at most 1 KiB in one spelling (a text, because jsonb has
-- spellings of its own, and a proof compares texts), and the secret of a second factor, encrypted under ENCRYPTION_KEY.
ALTER TABLE users ADD COLUMN IF NOT EXISTS claims TEXT;
ALTER TABLE users ADD COLUMN IF NOT EXISTS totp_secret TEXT;
