-- Email verification, disabled accounts, the language of mails, and the outbox.

-- All NULL: the user predates verification, and is never asked for it.
ALTER TABLE users ADD COLUMN IF NOT EXISTS email_verified_at TIMESTAMPTZ;
ALTER TABLE users ADD COLUMN IF NOT EXISTS unverified_since TIMESTAMPTZ;
ALTER TABLE users ADD COLUMN IF NOT EXISTS disabled_at TIMESTAMPTZ;
ALTER TABLE users ADD COLUMN IF NOT EXISTS locale TEXT;

-- A mail is deleted when it is delivered. It has neither a token nor a text, which are made then; `epoch` and `email_digest`,
-- a digest of the address, are of the user as the request saw them. A row without a recipient is for nobody:
-- whoever asks for a mail cannot tell by the time whether there is somebody. No foreign key: a deleted user is told.
CREATE TABLE mail_outbox (
    id UUID PRIMARY KEY,
    kind TEXT NOT NULL,
    recipient TEXT,
    user_id UUID,
    epoch INTEGER,
    email_digest TEXT,
    locale TEXT,
    asked_from TEXT,
    created_at TIMESTAMPTZ NOT NULL DEFAULT CURRENT_TIMESTAMP,
    due_at TIMESTAMPTZ NOT NULL DEFAULT CURRENT_TIMESTAMP,
    tries INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX idx_mail_outbox_due_at ON mail_outbox (due_at);
CREATE INDEX idx_mail_outbox_user_id ON mail_outbox (user_id);
