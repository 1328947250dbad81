"""Counts attempts by the rules of `shared.model.throttling`, in SQL.

The database's clock alone says when a lock ends: instances' clocks differ, and one that is wrong
must neither open a lock nor keep one shut.

A row says how many attempts are left; below none, it is locked until it expires. What is denied
spends nothing of the counts after it, but they are written all the same: a statement that did less
for some accounts would take less time.
"""

from __future__ import annotations

from shared.store.attempt_outcomes import ACCOUNT, CLIENT


def after(seconds: str) -> str:
    """Write the time that is so many seconds, a parameter or a number, from now."""
    return f"CURRENT_TIMESTAMP + {seconds}::float8 * interval '1 second'"


def _lasts(column: str, seconds: str) -> str:
    """Tell whether a time that was set to at most `seconds` from then has not come yet.

    One that lies further ahead than it can have been set was written by a clock that ran ahead,
    and has come. The minute is for who waited for the row while another wrote it.
    """
    return f"({column} > CURRENT_TIMESTAMP AND {column} <= {after(seconds)} + interval '1 minute')"


def spend(limit: str, seconds: str = ":lockout_seconds", *, prolongs: bool = True) -> str:
    """Take what a new row lacks of its limit, 0 or 1, from the row that is there already.

    -1 is the first denial and -2 every further one. A denial does not prolong the lock; what
    succeeds prolongs nothing at all, or whoever logs in regularly would be locked out in the end.
    `limit` is a parameter, and `seconds` for how many a row lasts at most.
    """
    lasts, unless_prolonged = _lasts("a.expires_at", seconds), ""
    if prolongs:
        unless_prolonged = f"AND (a.remaining <= 0 OR excluded.remaining = {limit}::int)"
    return f"""ON CONFLICT (key) DO UPDATE SET
        remaining = CASE WHEN {lasts}
            THEN greatest(a.remaining - ({limit}::int - excluded.remaining), -2)
            ELSE excluded.remaining END,
        expires_at = CASE WHEN {lasts} {unless_prolonged}
            THEN a.expires_at ELSE excluded.expires_at END"""


def count_attempt(found: str, kind: str) -> str:
    """Write the SQL that counts an attempt and gives the user that `found` selects.

    Everyone locks the rows in one order, so that no two wait for each other: client, login,
    account. The audit's row says that the attempt failed, until `count_success` corrects it; of
    what a network's lock denies only the first is written, or a flood would fill the table.

    Gives who denies, the event, for how many seconds, the database's time, and the user.
    """
    return f"""
    WITH found AS (
        {found}
    ), client AS (
        INSERT INTO auth_attempts AS a (key, remaining, expires_at)
        VALUES (:client_key, :client_limit::int - 1, {after(":lockout_seconds")})
        {spend(":client_limit")} RETURNING remaining, expires_at
    ), login AS (
        INSERT INTO auth_attempts AS a (key, remaining, expires_at)
        SELECT CASE WHEN EXISTS (SELECT FROM found) THEN :login_key ELSE :nobodys_login_key END,
            :login_limit::int - (remaining >= 0)::int, {after(":lockout_seconds")} FROM client
        {spend(":login_limit")} RETURNING remaining, expires_at,
            {_lasts("known_until", ":known_seconds")} AS known
    ), account AS (
        INSERT INTO auth_attempts AS a (key, remaining, expires_at)
        SELECT CASE WHEN EXISTS (SELECT FROM found) THEN :account_key ELSE :nobodys_account_key END,
            :account_limit::int - (c.remaining >= 0 AND l.remaining >= 0 AND NOT known)::int,
            {after(":lockout_seconds")}
        FROM client c, login l
        {spend(":account_limit")} RETURNING remaining, expires_at
    ), outcome AS (
        SELECT c.remaining, CASE WHEN c.remaining < 0 THEN '{CLIENT}'
            WHEN l.remaining < 0 OR (a.remaining < 0 AND NOT known) THEN '{ACCOUNT}'
            END AS denied_by,
            CASE WHEN c.remaining < 0 THEN c.expires_at WHEN l.remaining < 0 THEN l.expires_at
            ELSE a.expires_at END AS locked_until
        FROM client c, login l, account a
    ), event AS (
        INSERT INTO auth_events (at, kind, user_id, actor, client, provider)
        SELECT CURRENT_TIMESTAMP, CASE WHEN denied_by = '{CLIENT}'
                OR (denied_by = '{ACCOUNT}' AND f.id IS NOT NULL)
            THEN '{kind}_throttled' ELSE '{kind}_failed' END,
            f.id, CASE WHEN f.id IS NULL THEN :account END, :client,
            CASE WHEN f.id IS NOT NULL THEN coalesce(f.provider, 'local') END
        FROM outcome LEFT JOIN found f ON true WHERE remaining > -2 RETURNING id
    )
    SELECT CASE WHEN o.denied_by = '{CLIENT}' OR EXISTS (SELECT FROM found) THEN o.denied_by END,
        e.id, extract(epoch FROM o.locked_until - CURRENT_TIMESTAMP)::float8, CURRENT_TIMESTAMP, f.*
    FROM outcome o LEFT JOIN event e ON true LEFT JOIN found f ON o.denied_by IS NULL
    """


def count_success(
    kind: str,
    begun: str,
    then: str,
    more: str = "",
    also: str = "",
    undo: str = "",
    gives: str = "d.*",
) -> str:
    """Write the SQL that counts a success, and does what follows unless there were too many.

    It forgets the attempts before it. A success too many gives the network nothing back, so that
    what it writes is bounded as it is for failures. The network is known by a login alone: who took
    a session along, and the password, is new where they sign in.

    `then` asks `allowed`, and gives a row where it was done; only then is the audit told of the
    `kind`, and of `begun` that it was throttled where it was not allowed. `more` comes after the
    rest, and `also` finds what a first call did whose answer was lost. `undo` is a WHEN that fails,
    where nothing at all is to be done. Gives whether it was allowed, for how many seconds the count
    still lasts, and the row of `then`, or what else it `gives`.
    """
    is_allowed = "EXISTS (SELECT FROM allowed)"
    return f"""
    WITH again AS (
        SELECT FROM auth_events WHERE id = :event::uuid AND kind = '{kind}'
    ), counted AS (
        INSERT INTO auth_attempts AS a (key, remaining, expires_at)
        SELECT :success_key, :success_limit::int - (NOT EXISTS (SELECT FROM again))::int,
            {after(":lockout_seconds")}
        {spend(":success_limit", prolongs=False)} RETURNING remaining, expires_at
    ), allowed AS (
        SELECT FROM counted WHERE remaining >= 0 OR EXISTS (SELECT FROM again)
    ), done AS (
        {then}
    ), client AS (
        UPDATE auth_attempts SET remaining = least(remaining + 1, :client_limit::int)
        WHERE key = :client_key AND EXISTS (SELECT FROM allowed)
        AND EXISTS (SELECT FROM auth_events WHERE id = :event::uuid AND kind <> '{kind}')
        RETURNING 1
    ), login AS (
        UPDATE auth_attempts SET remaining = :login_limit::int,
            known_until = CASE '{kind}' WHEN 'login' THEN {after(":known_seconds")}
                ELSE known_until END
        WHERE key = :login_key AND (SELECT count(*) FROM client) >= 0 RETURNING 1
    ), account AS (
        UPDATE auth_attempts SET remaining = :account_limit::int
        WHERE key = :account_key AND (SELECT count(*) FROM login) >= 0 RETURNING 1
    ), event AS (
        UPDATE auth_events SET kind = CASE WHEN EXISTS (SELECT FROM allowed) THEN '{kind}'
            ELSE '{begun}_throttled' END
        WHERE id = :event::uuid
        AND (EXISTS (SELECT FROM done) OR NOT EXISTS (SELECT FROM allowed)) RETURNING 1
    ) {more}
    SELECT {f"CASE {undo} ELSE {is_allowed} END" if undo else is_allowed},
        extract(epoch FROM c.expires_at - CURRENT_TIMESTAMP)::float8, {gives}
    FROM counted c LEFT JOIN (SELECT * FROM done {also}) d ON true
    """


def give_back(*, audited: bool) -> str:
    """Write the SQL that takes an attempt back whose password was right, but what followed failed.

    The counts are as before it, and the audit, where it is not left alone, says nothing of it. It
    is a success all the same, and one too many gives nothing back, so that there is an end to it.
    """
    begun = "SELECT FROM counted WHERE remaining >= 0"
    if audited:
        begun = f"""DELETE FROM auth_events WHERE id = :event::uuid AND EXISTS ({begun})
        AND kind IN ('login_failed', 'reauthentication_failed') RETURNING 1"""
    return f"""
    WITH counted AS (
        INSERT INTO auth_attempts AS a (key, remaining, expires_at)
        VALUES (:success_key, :success_limit::int - 1, {after(":lockout_seconds")})
        {spend(":success_limit", prolongs=False)} RETURNING remaining
    ), begun AS (
        {begun}
    ), client AS (
        UPDATE auth_attempts SET remaining = least(remaining + 1, :client_limit::int)
        WHERE key = :client_key AND EXISTS (SELECT FROM begun) RETURNING 1
    ), login AS (
        UPDATE auth_attempts SET remaining = least(remaining + 1, :login_limit::int)
        WHERE key = :login_key AND EXISTS (SELECT FROM begun)
        AND (SELECT count(*) FROM client) >= 0
        RETURNING {_lasts("known_until", ":known_seconds")} AS known
    )
    UPDATE auth_attempts SET remaining = least(remaining + 1, :account_limit::int)
    WHERE key = :account_key AND EXISTS (SELECT FROM login WHERE NOT known)
    """
