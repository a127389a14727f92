"""What `watch` asks of the database: which rooms it must look at, and which excursions their readings show.

An excursion is a run of readings of one room. It begins with a reading beyond the limit of a threshold. It ends with
the next reading that is not beyond the temperature that clears the alarm. It lasts as long as its readings show. Where
an instant has several readings, the one furthest beyond counts. Excursions depend on the readings alone, and not on the
order in which these came. So `watch` may look for them again: an excursion is new if no alarm is kept of it.
"""

_JOIN_THRESHOLDS = """
    LEFT JOIN unnest(%(rule_buildings)s::text[], %(rule_rooms)s::text[], %(rule_profiles)s::int[])
        AS of_room (building_id, room_id, profile) USING (building_id, room_id)
    LEFT JOIN unnest(%(building_rules)s::text[], %(building_profiles)s::int[])
        AS of_building (building_id, profile) USING (building_id)
    LEFT JOIN unnest(
        %(profiles)s::int[], %(high_limits)s::float8[], %(high_clears)s::float8[], %(low_limits)s::float8[],
        %(low_clears)s::float8[], %(silent_limits)s::float8[], %(silent_now)s::bool[], %(silent_severities)s::text[]
    ) AS profile (number, high_limit, high_clear, low_limit, low_clear, silent_limit, silent_now, silent_severity)
        ON number = coalesce(of_room.profile, of_building.profile, %(everywhere)s::int)
"""
"""The thresholds of a room: those of the narrowest place that has rules. Those of the kind `low` have their sign
changed. So a greater number is always more alarming."""


def _alarming(kind: str, high: str, latest: str) -> str:
    """Whether `watch` must look at a room for a kind: for what came, or for its latest reading under another rule."""
    return f"""coalesce(
        low IS NOT NULL AND ({high} > {kind}_clear OR {kind}_open)
        OR CASE WHEN {kind}_open THEN {latest} <= {kind}_clear ELSE {latest} > {kind}_limit AND timestamp <= now() END,
        false
    )"""


_STATE = f"""
    SELECT
        building_id, room_id, timestamp, temperature, watched_until, came_from, came_to, low, high, profile.*,
        least(timestamp, now()) AS until,
        {_alarming("high", "high", "temperature")} AS look_high,
        {_alarming("low", "-low", "-temperature")} AS look_low,
        coalesce(CASE
            WHEN silent_open THEN now() - heard <= make_interval(secs => silent_limit)
            ELSE silent_now AND heard IS NOT NULL AND now() - greatest(heard, (SELECT listening_since FROM watching))
                > make_interval(secs => silent_limit)
        END, false) AS silence_turns,
        coalesce(silent_open, false) AS silent_open
    FROM {{rooms}} AS room
    {_JOIN_THRESHOLDS}
    CROSS JOIN LATERAL (
        -- By the index: this table may grow by thousands of rows at once, and the planner does not know of them.
        SELECT
            bool_or(kind = 'high') AS high_open, bool_or(kind = 'low') AS low_open,
            bool_or(kind = 'silent') AS silent_open
        FROM alarms AS open
        WHERE open.building_id = room.building_id AND open.room_id = room.room_id AND cleared IS NULL
    ) AS open
    CROSS JOIN LATERAL (
        -- A reading of the future becomes the latest one when its time has come.
        SELECT CASE
            WHEN timestamp <= now() THEN timestamp
            ELSE (SELECT past.timestamp FROM latest_reading(building_id, room_id, now()) AS past)
        END AS heard
    ) AS latest
"""  # noqa: S608 - constants
_TO_TAKE = "look_high OR look_low OR came_from IS NOT NULL OR watched_until < until - interval '1 hour'"
"""A calm room keeps the note that readings came for up to an hour: to erase it takes a write."""

_PERHAPS_ALARMING = """(
    SELECT * FROM rooms
    WHERE high > %(calm_high)s OR temperature > %(calm_high)s OR -low > %(calm_low)s OR -temperature > %(calm_low)s
       OR came_from IS NOT NULL OR watched_until < least(timestamp, now()) - interval '1 hour'
       OR timestamp < now() - make_interval(secs => %(calm_silence)s) OR timestamp > now()
       -- Not IN: where many alarms are open, it searches all of them for each room.
       OR EXISTS (
           SELECT FROM alarms AS open
           WHERE open.building_id = rooms.building_id AND open.room_id = rooms.room_id AND cleared IS NULL
       )
)"""
"""Rooms that may be alarming by some rule. This looks at their rows alone, which takes a tenth of the time."""

WAITING = f"""
    SELECT
        building_id, room_id, ({_TO_TAKE}) AS to_take, silence_turns AND NOT silent_open AS fell_silent,
        silence_turns AND silent_open AS heard_again
    FROM ({_STATE.format(rooms=_PERHAPS_ALARMING)}) AS state
    WHERE (building_id, room_id) > (%(after_building)s, %(after_room)s) AND (({_TO_TAKE}) OR silence_turns)
    ORDER BY building_id, room_id LIMIT %(limit)s
"""  # noqa: S608 - constants
"""The next rooms to look at, after a given one."""

_CHOSEN = """(
    SELECT rooms.* FROM rooms
    JOIN unnest(%(buildings)s::text[], %(names)s::text[]) AS chosen (building_id, room_id) USING (building_id, room_id)
    {lock}
)"""
_LOCKED = _CHOSEN.format(lock="ORDER BY building_id, room_id FOR UPDATE OF rooms")

CONFIRM = "SELECT pg_logical_emit_message(true, 'temperature', '')"
"""Writes something that every copy has to confirm. A transaction that changes nothing waits for no copy."""

LOCK = "SELECT pg_advisory_xact_lock(hashtext('temperature watch'))"
"""One slice at a time, whichever instance does it."""

TAKE = f"""
    WITH locked AS MATERIALIZED {_LOCKED}, state AS MATERIALIZED (
        SELECT
            state.*, look_high OR look_low AS look,
            CASE WHEN watched_until = '-infinity' THEN until ELSE least(watched_until, until) END AS since
        FROM ({_STATE.format(rooms="locked")}) AS state
    ), part AS (
        SELECT
            *,
            CASE WHEN look THEN least(since + %(hours)s * interval '1 hour', until) ELSE until END AS live_until,
            CASE WHEN look THEN least(came_from + %(hours)s * interval '1 hour', came_to) ELSE came_to END AS late_until
        FROM state
    ), taken AS (
        UPDATE rooms SET
            watched_until = live_until,
            came_from = CASE WHEN late_until < part.came_to THEN late_until END,
            came_to = CASE WHEN late_until < part.came_to THEN part.came_to END,
            low = CASE WHEN live_until < part.timestamp OR late_until < part.came_to THEN part.low END,
            high = CASE WHEN live_until < part.timestamp OR late_until < part.came_to THEN part.high END
        FROM part WHERE rooms.building_id = part.building_id AND rooms.room_id = part.room_id
    )
    SELECT
        building_id, room_id, number, look_high, look_low, since, live_until, came_from, late_until,
        live_until < until OR coalesce(late_until < came_to, false) AS more
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


def _heat(reading: str) -> str:
    """How far a reading goes in the direction of a threshold; nowhere while the threshold does not count."""
    local = f"({reading}.timestamp AT TIME ZONE 'UTC' + span.offsets[width_bucket({reading}.timestamp, span.changes)])"
    minute = (
        f"(extract(isodow FROM {local}) - 1) * 1440 + extract(hour FROM {local}) * 60 + extract(minute FROM {local})"
    )
    return (
        f"CASE WHEN span.hours IS NULL OR span.hours @> floor({minute})::int"
        f" THEN span.sign * {reading}.temperature ELSE '-infinity' END"
    )


_OF_ITS_ROOM = "{0}.building_id = span.building_id AND {0}.room_id = span.room_id AND {0}.timestamp"

EXCURSIONS = f"""
    WITH zone AS MATERIALIZED (
        SELECT zone, array_agg(change ORDER BY change) AS changes, array_agg(utc_offset ORDER BY change) AS offsets
        FROM unnest(%(zone_names)s::text[], %(zone_changes)s::timestamptz[], %(zone_offsets)s::interval[])
            AS change (zone, change, utc_offset)
        GROUP BY zone
    ), given AS MATERIALIZED (
        SELECT
            number, building_id, room_id, sign, limit_, clear, make_interval(secs => lasting) AS lasting,
            hours::int4multirange AS hours, changes, offsets, since, until, bound
        FROM unnest(
            %(numbers)s::int[], %(buildings)s::text[], %(names)s::text[], %(signs)s::float8[], %(limits)s::float8[],
            %(clears)s::float8[], %(lasting)s::int[], %(zones)s::text[], %(hours)s::text[], %(since)s::timestamptz[],
            %(until)s::timestamptz[], %(bounds)s::timestamptz[]
        ) AS span (
            number, building_id, room_id, sign, limit_, clear, lasting, zone, hours, since, until, bound
        ) LEFT JOIN zone USING (zone)
    ), span AS MATERIALIZED (
        SELECT
            *,
            -- An excursion has to last for a while. One that is too short yet began at most that long ago.
            CASE WHEN lasting > interval '0' THEN coalesce((
                SELECT before.timestamp FROM temperatures AS before
                WHERE {_OF_ITS_ROOM.format("before")} < since ORDER BY before.timestamp DESC LIMIT 1
            ), since) - lasting ELSE since END AS first,
            -- An excursion that goes on after the span ends later, or belongs to the next alarm.
            coalesce((
                SELECT after.timestamp FROM temperatures AS after
                WHERE {_OF_ITS_ROOM.format("after")} > until AND after.timestamp <= least(now(), bound)
                GROUP BY after.timestamp HAVING max({_heat("after")}) <= clear ORDER BY after.timestamp LIMIT 1
            ), least(now(), bound)) AS last
        FROM given AS span
    ), instant AS (
        SELECT number, timestamp, heat, heat > limit_ AS beyond, heat <= clear AS calm
        FROM span CROSS JOIN LATERAL (
            SELECT reading.timestamp, max({_heat("reading")}) AS heat FROM temperatures AS reading
            WHERE {_OF_ITS_ROOM.format("reading")} BETWEEN first AND last GROUP BY reading.timestamp
        ) AS reading
    ), placed AS (
        SELECT *, count(*) FILTER (WHERE calm) OVER (
            PARTITION BY number ORDER BY timestamp ROWS UNBOUNDED PRECEDING
        ) AS run FROM instant
    ), run AS (
        SELECT
            number, run, min(timestamp) FILTER (WHERE calm) AS calm_at, min(timestamp) FILTER (WHERE beyond) AS began,
            -- The heat of the first reading beyond: the first elements of arrays decide which one is less.
            (min(ARRAY[extract(epoch FROM timestamp)::float8, heat]) FILTER (WHERE beyond))[2] AS heat,
            lead(min(timestamp) FILTER (WHERE calm)) OVER (PARTITION BY number ORDER BY run) AS ended, count(*)
        FROM placed GROUP BY number, run
    )
    SELECT
        number, calm_at, began, ended,
        sign * heat AS temperature,
        lasting = interval '0' OR EXISTS (
            SELECT FROM temperatures AS reading
            WHERE {_OF_ITS_ROOM.format("reading")} >= began + lasting
              AND reading.timestamp < coalesce(ended, 'infinity') AND reading.timestamp <= now()
        ) AS lasts,
        sum(count) OVER () AS readings
    FROM run JOIN span USING (number)
    -- The first calm reading ends an alarm that began before. Where rules have changed, the last one does.
    WHERE began IS NOT NULL OR run <= 1 OR ended IS NULL
    ORDER BY number, run
"""  # noqa: S608 - constants
"""The excursions of spans of readings, in order; and for each span its first and its last calm reading."""

_EVENT = "alarm, state, sink, raised, cleared, dataschema, traceparent"
_KEEP = """
    WITH new AS (
        INSERT INTO alarms (building_id, room_id, kind, threshold, temperature, raised, cleared, severity, sink)
        {alarms}
        ON CONFLICT DO NOTHING RETURNING id, raised, cleared
    ), told AS (
        INSERT INTO alarm_events ({event})
        SELECT id, state, %(sink)s, raised, CASE state WHEN 'cleared' THEN cleared END, %(dataschema)s, %(traceparent)s
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
        RETURNING alarms.id, alarms.raised, alarms.cleared, sink
    ), told AS (
        INSERT INTO alarm_events ({event})
        SELECT id, 'cleared', sink, raised, cleared, %(dataschema)s, %(traceparent)s FROM ended WHERE sink IS NOT NULL
        ON CONFLICT DO NOTHING
    )
    SELECT count(*) FROM ended
"""

RAISE = _KEEP.format(
    event=_EVENT,
    alarms="""
        SELECT *, %(sink)s FROM unnest(
            %(buildings)s::text[], %(names)s::text[], %(kinds)s::text[], %(thresholds)s::float8[],
            %(temperatures)s::float8[], %(raised)s::timestamptz[], %(cleared)s::timestamptz[], %(severities)s::text[]
        ) AS alarm
    """,
)
CLEAR = _END.format(event=_EVENT, turns="SELECT * FROM unnest(%(ids)s::uuid[], %(cleared)s::timestamptz[]) AS turn")
EXTEND = """
    UPDATE alarms SET raised = turn.raised FROM unnest(%(ids)s::uuid[], %(raised)s::timestamptz[]) AS turn (id, raised)
    WHERE alarms.id = turn.id
"""
"""Moves the beginning of alarms: readings that came late show that they began earlier."""

_SILENCES = _STATE.format(rooms=_CHOSEN.format(lock=""))
RAISE_SILENCES = _KEEP.format(
    event=_EVENT,
    alarms=f"""
        SELECT building_id, room_id, 'silent', silent_limit, temperature, now(), NULL, silent_severity, %(sink)s
        FROM ({_SILENCES}) AS state WHERE silence_turns AND NOT silent_open
    """,  # noqa: S608 - constants
)
CLEAR_SILENCES = _END.format(
    event=_EVENT,
    turns=f"""
        SELECT alarm.id, now() FROM ({_SILENCES}) AS state JOIN alarms AS alarm USING (building_id, room_id)
        WHERE silence_turns AND silent_open AND alarm.kind = 'silent' AND alarm.cleared IS NULL
    """,  # noqa: S608 - constants
)
CLEAR_WITHOUT_RULE = _END.format(
    event=_EVENT,
    turns=f"""
        SELECT id, now() FROM alarms AS alarm
        LEFT JOIN rooms AS room USING (building_id, room_id)
        {_JOIN_THRESHOLDS}
        WHERE alarm.cleared IS NULL AND (
            room.timestamp IS NULL
            OR CASE kind WHEN 'high' THEN high_limit WHEN 'low' THEN low_limit ELSE silent_limit END IS NULL
        )
        LIMIT %(limit)s
    """,  # noqa: S608 - constants
)
"""Clears alarms whose rule or room is gone."""

FORGET = """
    WITH forgotten AS (
        DELETE FROM alarms WHERE id IN (
            SELECT id FROM alarms
            WHERE cleared < now() - %(retention)s::interval AND noticed < now() - %(retention)s::interval
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
"""Deletes alarms that ended, and were noticed, longer ago than the retention. It also deletes alarms whose readings
were removed, once the sink knows that they are over."""

NOTE_CHECK = """
    UPDATE watching SET
        listening_since = CASE
            WHEN checked < now() - %(pause)s::interval AND NOT rarely THEN now() ELSE listening_since
        END,
        rarely = coalesce(checked < now() - %(pause)s::interval, false),
        checked = now()
    RETURNING now()
"""
"""Writes down that `watch` looks, and readings can arrive. After a pause, silences count from now on. Where looks are
always rare, a pause means nothing."""

UNSENT = """
    SELECT count(*) FILTER (WHERE next_attempt <= now()), count(*) FROM alarm_events
    WHERE sink IN (%(sink)s, '') AND given_up IS NULL
"""
"""How many events it is time to send, and how many the sink has not taken, those among them."""
