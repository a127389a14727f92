"""What `watch` asks of the database and writes there: which rooms it is to look at, and the alarms of these.

What is alarming is said by `watch.thresholds`.
"""

from datetime import timedelta

from watch import thresholds

GIVEN_UP_AFTER = timedelta(days=7)
"""An event that no sink has taken by then is not sent any more."""

_TO_TAKE = "look_high OR look_low OR came_from IS NOT NULL OR watched_until < until - interval '1 hour'"
"""A calm room keeps the note that readings came for up to an hour: to erase it takes a write."""

WAITING = f"""
    SELECT
        building_id, room_id, ({_TO_TAKE}) AS to_take, silence_turns AND NOT silent_open AS fell_silent,
        silence_turns AND silent_open AS heard_again
    FROM ({thresholds.ROOMS_COMPARED.format(rooms=thresholds.ROOMS_PERHAPS_ALARMING)}) AS state
    WHERE ({_TO_TAKE}) OR silence_turns
    ORDER BY building_id, room_id LIMIT %(limit)s
"""  # noqa: S608 - constants
"""The next rooms to look at, after a given one."""

_CHOSEN = """(
    SELECT rooms.* FROM rooms
    JOIN unnest(%(buildings)s::text[], %(names)s::text[]) AS chosen (building_id, room_id) USING (building_id, room_id)
    {lock}
)"""
_LOCKED = _CHOSEN.format(lock="ORDER BY building_id, room_id FOR UPDATE OF rooms")

LOCK = "SELECT pg_advisory_xact_lock(hashtext('temperature watch')), need_readings()"
"""One slice at a time, whichever instance does it; and none where readings are hidden, and would pass unseen."""

TAKE = f"""
    WITH locked AS MATERIALIZED {_LOCKED}, state AS MATERIALIZED (
        SELECT
            state.*, look_high OR look_low AS look,
            CASE WHEN watched_until = '-infinity' THEN until ELSE least(watched_until, until) END AS since
        FROM ({thresholds.ROOMS_COMPARED.format(rooms="locked")}) AS state
    ), divided AS (
        -- What is ahead of the readings that were looked at is looked at with the others there.
        SELECT
            *, CASE WHEN came_from < since THEN came_from END AS behind_from,
            CASE WHEN came_from < since THEN least(came_to, since) END AS behind_to
        FROM state
    ), behind AS (
        SELECT *, CASE
            WHEN look THEN least(behind_from + %(hours)s * interval '1 hour', behind_to) ELSE behind_to
        END AS behind_until
        FROM divided
    ), part AS (
        SELECT *, coalesce(behind_until < behind_to, false) AS has_more_behind, CASE
            -- A calm reading ends an alarm of those that came late only where all before it were looked at.
            WHEN behind_until < behind_to THEN watched_until
            WHEN look THEN least(since + %(hours)s * interval '1 hour', until)
            ELSE until
        END AS live_until
        FROM behind
    ), taken AS (
        UPDATE rooms SET
            watched_until = live_until,
            came_from = CASE WHEN has_more_behind THEN behind_until END,
            came_to = CASE WHEN has_more_behind THEN behind_to END,
            low = CASE WHEN has_more_behind OR live_until < part.timestamp THEN part.low END,
            high = CASE WHEN has_more_behind OR live_until < part.timestamp THEN part.high END
        FROM part WHERE rooms.building_id = part.building_id AND rooms.room_id = part.room_id
    )
    SELECT
        building_id, room_id, number, look_high, look_low, since, CASE WHEN NOT has_more_behind THEN live_until END,
        behind_from, behind_until, CASE WHEN has_more_behind THEN behind_until ELSE live_until END,
        has_more_behind OR live_until < until
    FROM part
"""  # noqa: S608 - constants
"""Takes what came to some rooms since the last look. Of a room to look at, it takes no more than some hours."""

NEARBY = """
    SELECT number, id, alarm.raised, alarm.cleared
    FROM unnest(
        %(numbers)s::int[], %(buildings)s::text[], %(names)s::text[], %(kinds)s::text[], %(since)s::timestamptz[]
    ) AS span (number, building_id, room_id, kind, since)
    JOIN alarms AS alarm USING (building_id, room_id, kind)
    WHERE alarm.removed IS NULL AND (alarm.cleared IS NULL OR alarm.cleared >= since)
    ORDER BY number, alarm.raised
"""
"""The alarms that are open, or that ended after a span began."""


_KEEP = """
    WITH new AS (
        INSERT INTO alarms (building_id, room_id, kind, threshold, temperature, raised, cleared, severity, sink)
        {alarms}
        ON CONFLICT DO NOTHING RETURNING id, raised, cleared, temperature
    ), told AS (
        INSERT INTO alarm_events (alarm, state, sink, raised, cleared, temperature, dataschema, traceparent)
        SELECT
            id, state, %(sink)s, raised, CASE state WHEN 'cleared' THEN cleared END, temperature,
            %(dataschema)s, %(traceparent)s
        FROM new CROSS JOIN (VALUES ('raised'), ('cleared')) AS state (state)
        WHERE %(sink)s::text IS NOT NULL AND (state = 'raised' OR cleared IS NOT NULL)
    )
    SELECT count(*), count(cleared) FROM new
"""
_END = """
    WITH ended AS (
        UPDATE alarms SET cleared = greatest(alarms.raised, turn.cleared)
        FROM ({turns}) AS turn (id, cleared)
        WHERE alarms.id = turn.id AND alarms.cleared IS NULL
        RETURNING alarms.id, alarms.raised, alarms.cleared, alarms.temperature, sink
    ), told AS (
        INSERT INTO alarm_events (alarm, state, sink, raised, cleared, temperature, dataschema, traceparent)
        SELECT id, 'cleared', sink, raised, cleared, temperature, %(dataschema)s, %(traceparent)s
        FROM ended WHERE sink IS NOT NULL
        ON CONFLICT DO NOTHING
    )
    SELECT count(*) FROM ended
"""

RAISE = _KEEP.format(
    alarms="""
        SELECT *, %(sink)s FROM unnest(
            %(buildings)s::text[], %(names)s::text[], %(kinds)s::text[], %(thresholds)s::float8[],
            %(temperatures)s::float8[], %(raised)s::timestamptz[], %(cleared)s::timestamptz[], %(severities)s::text[]
        ) AS alarm
    """,
)
CLEAR = _END.format(turns="SELECT * FROM unnest(%(ids)s::uuid[], %(cleared)s::timestamptz[]) AS turn")
EXTEND = """
    UPDATE alarms SET raised = turn.raised, temperature = turn.temperature
    FROM unnest(%(ids)s::uuid[], %(raised)s::timestamptz[], %(temperatures)s::float8[])
        AS turn (id, raised, temperature)
    WHERE alarms.id = turn.id
"""
"""Moves the beginning of alarms: readings that came late show that they began earlier."""

_SILENCES = thresholds.ROOMS_COMPARED.format(rooms=_CHOSEN.format(lock=""))
RAISE_SILENCES = _KEEP.format(
    alarms=f"""
        SELECT building_id, room_id, 'silent', silent_limit, latest, now(), NULL, silent_severity, %(sink)s
        FROM ({_SILENCES}) AS state WHERE silence_turns AND NOT silent_open
    """,  # noqa: S608 - constants
)
CLEAR_SILENCES = _END.format(
    turns=f"""
        SELECT alarm.id, now() FROM ({_SILENCES}) AS state JOIN alarms AS alarm USING (building_id, room_id)
        WHERE silence_turns AND silent_open AND alarm.kind = 'silent' AND alarm.cleared IS NULL
    """,  # noqa: S608 - constants
)
CLEAR_WITHOUT_RULE = _END.format(
    turns=f"""
        SELECT id, CASE kind WHEN 'silent' THEN now() ELSE coalesce(heard, now()) END FROM alarms AS alarm
        LEFT JOIN rooms AS room USING (building_id, room_id)
        {thresholds.JOIN}
        {thresholds.LATEST}
        WHERE alarm.cleared IS NULL AND (
            room.timestamp IS NULL
            OR CASE kind WHEN 'high' THEN high_limit WHEN 'low' THEN low_limit ELSE silent_limit END IS NULL
        )
        LIMIT %(limit)s
    """,  # noqa: S608 - constants
)
"""Clears alarms whose rule or room is gone; those of temperatures with the latest reading, as another rule would."""

FORGET = """
    WITH forgotten AS (
        DELETE FROM alarms WHERE id IN (
            SELECT id FROM alarms
            WHERE cleared < now() - %(retention)s::interval AND noticed < now() - %(retention)s::interval
              AND NOT EXISTS (
                  SELECT FROM alarm_events
                  WHERE alarm = id AND given_up IS NULL AND made > now() - %(given_up_after)s::interval
              )
            LIMIT %(limit)s
        ) OR id IN (
            SELECT id FROM alarms WHERE removed IS NOT NULL AND NOT EXISTS (
                SELECT FROM alarm_events WHERE alarm = id AND given_up IS NULL
            )
            LIMIT %(limit)s
        )
        RETURNING id
    )
    SELECT count(*) FROM forgotten
"""
"""Deletes alarms that ended, and were noticed, longer ago than the retention; not while a sink is still to be told of
one. It also deletes alarms whose readings were removed, once the sink knows that they are over."""

NOTE_CHECK = """
    UPDATE watching SET listening_since = CASE
        -- Not again by a check after one that failed.
        WHEN checked < now() - %(pause)s::interval AND checked >= listening_since AND NOT rarely THEN now()
        ELSE listening_since
    END
    RETURNING now()
"""
"""Writes down that readings can arrive. After a pause, silences count from now on. Where the look before came after a
pause too, looks are rare, and a pause means nothing."""

NOTE_LOOK = """
    UPDATE watching SET
        rarely = coalesce(checked < %(began)s::timestamptz - %(pause)s::interval, false), checked = now()
"""
"""Writes down that `watch` has looked, which every copy has to confirm: a transaction that changes nothing waits for no
copy."""

UNSENT = """
    SELECT count(*) FILTER (WHERE next_attempt <= now()), count(*) FROM alarm_events
    WHERE sink IN (%(sink)s, '') AND given_up IS NULL
"""
"""How many events it is time to send, and how many the sink has not taken, those among them."""
