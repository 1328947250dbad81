-- The trigger on users calls this as whoever writes a user: the old server's role too, also where new functions are
-- not everybody's (ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC).
GRANT EXECUTE ON FUNCTION email_key(text) TO PUBLIC;
