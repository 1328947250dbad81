-- Applied when no key is left to be made: from then on requests are served. `make migrate-schema` makes them, and so
-- does an instance's first connection, as far as it gets in a request's time.

DO $$
BEGIN
    IF EXISTS (SELECT FROM pending_email_keys) THEN
        RAISE EXCEPTION 'keys of email addresses are to be corrected first: run make migrate-schema';
    END IF;
END
$$;
