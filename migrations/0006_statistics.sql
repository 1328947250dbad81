-- Counts of the audit's events by the hour, because nobody can count millions of them anew.

-- The provider of whoever logged in, as it was then: it may change later, and the user may go.
ALTER TABLE auth_events ADD COLUMN IF NOT EXISTS provider TEXT;

-- From the first of these hours to the last there is none missing, and what comes after the last has not
-- been counted yet. `counts` has a triple for each kind: the kind, its detail, and how many. `version`
-- tells one count of an hour from the next.
CREATE TABLE IF NOT EXISTS event_hours (
    hour TIMESTAMPTZ PRIMARY KEY,
    version INTEGER NOT NULL,
    counts JSONB NOT NULL
);

-- Hours of which an event has come, changed or gone later than at once, so that they are counted anew. The
-- transaction is in the key so that none waits for another, nor relies on another's row.
CREATE TABLE IF NOT EXISTS changed_hours (
    hour TIMESTAMPTZ,
    transaction XID8 DEFAULT pg_current_xact_id(),
    PRIMARY KEY (hour, transaction)
);
-- The triggers act for whoever changes an event, also for roles that were granted their rights before.
GRANT INSERT ON changed_hours TO PUBLIC;

CREATE OR REPLACE FUNCTION mark_changed_hour() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO changed_hours (hour) VALUES (date_trunc('hour', coalesce(NEW.at, OLD.at), 'UTC'))
    ON CONFLICT DO NOTHING;
    RETURN NULL;
END
$$;

-- What happens at once costs no more than the comparison: its hour is counted two hours after its end.
DROP TRIGGER IF EXISTS mark_hour_of_late_event ON auth_events;
CREATE TRIGGER mark_hour_of_late_event AFTER INSERT OR UPDATE ON auth_events
    FOR EACH ROW WHEN (NEW.at < clock_timestamp() - interval '10 minutes')
    EXECUTE FUNCTION mark_changed_hour();
DROP TRIGGER IF EXISTS mark_hour_of_deleted_event ON auth_events;
CREATE TRIGGER mark_hour_of_deleted_event AFTER DELETE ON auth_events
    FOR EACH ROW EXECUTE FUNCTION mark_changed_hour();
