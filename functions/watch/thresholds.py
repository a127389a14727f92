"""Where readings are compared with thresholds. PostgreSQL does it, by these statements and their parameters.

A room is compared by its row alone, which says whether its readings must be looked at, and whether it is silent. Then
the readings are compared, each by itself, which gives the excursions.

An excursion is a run of readings of one room. It begins with a reading beyond the limit of a threshold. It ends with
the next reading that is not beyond the temperature that clears the alarm. It lasts as long as its readings show. Where
an instant has several readings, the one furthest beyond counts. Excursions depend on the readings alone, and not on the
order in which these came. So `watch` may look for them again: an excursion is new if no alarm is kept of it.

There is one exception: an alarm that was told to be over stays over. So an excursion ends there too, whatever readings
came or were removed since.
"""

from collections.abc import Sequence
from datetime import datetime
from math import inf
from typing import Any

from shared import zones
from watch.rules import SIGN_OF_KIND, Place, Rules, Threshold, Thresholds

FOREVER_SECONDS = 1e10

_ZONE = """(
    SELECT zone, array_agg(change ORDER BY change) AS changes, array_agg(utc_offset ORDER BY change) AS offsets
    FROM unnest(%(zone_names)s::text[], %(zone_changes)s::timestamptz[], %(zone_offsets)s::interval[])
        AS change (zone, change, utc_offset)
    GROUP BY zone
)"""

JOIN = f"""
    LEFT JOIN unnest(%(rule_buildings)s::text[], %(rule_rooms)s::text[], %(rule_profiles)s::int[])
        AS of_room (building_id, room_id, profile) USING (building_id, room_id)
    LEFT JOIN unnest(%(building_rules)s::text[], %(building_profiles)s::int[])
        AS of_building (building_id, profile) USING (building_id)
    LEFT JOIN (
        SELECT
            profile.*, of_high.changes AS high_changes, of_high.offsets AS high_offsets,
            of_low.changes AS low_changes, of_low.offsets AS low_offsets
        FROM unnest(
            %(profiles)s::int[], %(high_limits)s::float8[], %(high_clears)s::float8[], %(high_zones)s::text[],
            %(high_hours)s::text[]::int4multirange[], %(low_limits)s::float8[], %(low_clears)s::float8[],
            %(low_zones)s::text[], %(low_hours)s::text[]::int4multirange[], %(silent_limits)s::float8[],
            %(silent_now)s::bool[], %(silent_severities)s::text[]
        ) AS profile (
            number, high_limit, high_clear, high_zone, high_hours, low_limit, low_clear, low_zone, low_hours,
            silent_limit, silent_now, silent_severity
        )
        LEFT JOIN {_ZONE} AS of_high ON of_high.zone = high_zone
        LEFT JOIN {_ZONE} AS of_low ON of_low.zone = low_zone
        -- Once, and not for each room.
        OFFSET 0
    ) AS profile ON number = coalesce(of_room.profile, of_building.profile, %(everywhere)s::int)
"""  # noqa: S608 - constants
"""The thresholds of a room: those of the narrowest place that has rules. Those of the kind `low` have their sign
changed. So a greater number is always more alarming."""


def _counts(instant: str, of: str) -> str:
    """Whether an instant is in the hours of a threshold, whose columns begin so."""
    local = f"({instant} AT TIME ZONE 'UTC' + {of}offsets[width_bucket({instant}, {of}changes)])"
    minute = (
        f"(extract(isodow FROM {local}) - 1) * 1440 + extract(hour FROM {local}) * 60 + extract(minute FROM {local})"
    )
    return f"({of}hours IS NULL OR {of}hours @> floor({minute})::int)"


LATEST = """
    CROSS JOIN LATERAL (
        -- A reading of the future becomes the latest one when its time has come.
        SELECT room.timestamp AS heard, room.temperature AS latest WHERE room.timestamp <= now()
        UNION ALL
        SELECT past.timestamp, past.temperature
        FROM (VALUES (1)) AS once LEFT JOIN latest_reading(room.building_id, room.room_id, now()) AS past ON true
        WHERE (room.timestamp <= now()) IS NOT TRUE
    ) AS latest
"""
"""The latest reading of a `room` so far; NULL where there is none."""


def _alarming(kind: str, high: str, latest: str) -> str:
    """Whether `watch` must look at a room for a kind: for what came, or for its latest reading under another rule."""
    return f"""coalesce(
        low IS NOT NULL AND ({high} > {kind}_clear OR {kind}_open)
        OR CASE
            WHEN {kind}_open THEN {latest} <= {kind}_clear OR NOT {_counts("heard", f"{kind}_")}
            ELSE {latest} > {kind}_limit AND {_counts("heard", f"{kind}_")}
        END,
        false
    )"""


ROOMS_COMPARED = f"""
    SELECT
        building_id, room_id, timestamp, latest, watched_until, came_from, came_to, low, high,
        number, silent_limit, silent_severity,
        coalesce(heard, now()) AS until,
        {_alarming("high", "high", "latest")} AS look_high,
        {_alarming("low", "-low", "-latest")} AS look_low,
        coalesce(CASE
            WHEN silent_open THEN now() - heard <= make_interval(secs => silent_limit)
            ELSE silent_now AND heard IS NOT NULL AND now() - greatest(heard, (SELECT listening_since FROM watching))
                > make_interval(secs => silent_limit)
        END, false) AS silence_turns,
        coalesce(silent_open, false) AS silent_open
    FROM {{rooms}} AS room
    {JOIN}
    CROSS JOIN LATERAL (
        -- By the index: this table may grow by thousands of rows at once, and the planner does not know of them.
        SELECT
            bool_or(kind = 'high') AS high_open, bool_or(kind = 'low') AS low_open,
            bool_or(kind = 'silent') AS silent_open
        FROM alarms AS open
        WHERE open.building_id = room.building_id AND open.room_id = room.room_id AND cleared IS NULL
    ) AS open
    {LATEST}
    -- With a LIMIT, the planner would look for the rule of each room in all rules.
    OFFSET 0
"""  # noqa: S608 - constants
"""Whether `watch` must look at the readings of some `{rooms}`, and whether a silence begins or ends."""

ROOMS_PERHAPS_ALARMING = """(
    SELECT * FROM rooms
    WHERE (building_id, room_id) > (%(after_building)s, %(after_room)s) AND (
        high > %(calm_high)s OR temperature > %(calm_high)s OR -low > %(calm_low)s OR -temperature > %(calm_low)s
        OR came_from IS NOT NULL OR watched_until < least(timestamp, now()) - interval '1 hour'
        OR timestamp < now() - make_interval(secs => %(calm_silence)s) OR timestamp > now()
        -- Not IN: where many alarms are open, it searches all of them for each room.
        OR EXISTS (
            SELECT FROM alarms AS open
            WHERE open.building_id = rooms.building_id AND open.room_id = rooms.room_id AND cleared IS NULL
        )
    )
)"""
"""Rooms behind a given one that may be alarming by some rule. This looks at their rows alone: a tenth of the time."""


def _heat(reading: str) -> str:
    """How far a reading goes in the direction of a threshold; nowhere while the threshold does not count."""
    counts = _counts(f"{reading}.timestamp", "span.")
    return f"CASE WHEN {counts} THEN span.sign * {reading}.temperature ELSE '-infinity' END"


_OF_ITS_ROOM = """
    -- TimescaleDB plans the chunks of these instants only.
    {0}.timestamp BETWEEN %(earliest)s::timestamptz AND %(latest)s::timestamptz
    AND {0}.building_id = span.building_id AND {0}.room_id = span.room_id AND {0}.timestamp
"""

BEGINNINGS = f"""
    SELECT CASE WHEN lasting > 0 THEN coalesce(
        (
            SELECT before.timestamp FROM temperatures AS before
            WHERE {_OF_ITS_ROOM.format("before")} < since ORDER BY before.timestamp DESC LIMIT 1
        ),
        (SELECT timestamp FROM latest_reading(building_id, room_id, since - interval '0.000001')), since
    ) - make_interval(secs => lasting) ELSE since END
    FROM unnest(
        %(numbers)s::int[], %(buildings)s::text[], %(names)s::text[], %(lasting)s::int[], %(since)s::timestamptz[]
    ) AS span (number, building_id, room_id, lasting, since)
    ORDER BY number
"""  # noqa: S608 - constants
"""For spans of readings, since when an excursion may have begun that is too short yet: it has to last for a while."""

EXCURSIONS = f"""
    WITH given AS MATERIALIZED (
        SELECT
            number, building_id, room_id, kind, sign, limit_, clear, make_interval(secs => lasting) AS lasting,
            hours::int4multirange AS hours, changes, offsets, first, until, seen_until, bound,
            least(now(), coalesce(bound, seen_until)) AS horizon
        FROM unnest(
            %(numbers)s::int[], %(buildings)s::text[], %(names)s::text[], %(kinds)s::text[], %(signs)s::float8[],
            %(limits)s::float8[], %(clears)s::float8[], %(lasting)s::int[], %(zones)s::text[], %(hours)s::text[],
            %(firsts)s::timestamptz[], %(until)s::timestamptz[], %(seen_until)s::timestamptz[],
            %(bounds)s::timestamptz[]
        ) AS span (
            number, building_id, room_id, kind, sign, limit_, clear, lasting, zone, hours,
            first, until, seen_until, bound
        ) LEFT JOIN {_ZONE} AS zone USING (zone)
    ), bounded AS MATERIALIZED (
        SELECT
            *,
            -- An excursion that goes on after the span ends later, or belongs to the next alarm. Without one it is open
            -- until what comes next is looked at: a backlog is not read anew for each of its slices.
            coalesce((
                SELECT after.timestamp FROM temperatures AS after
                WHERE {_OF_ITS_ROOM.format("after")} > until AND after.timestamp <= horizon
                GROUP BY after.timestamp HAVING max({_heat("after")}) <= clear ORDER BY after.timestamp LIMIT 1
            ), horizon) AS last
        FROM given AS span
    ), span AS MATERIALIZED (
        SELECT *, ARRAY(
            SELECT cleared FROM alarms AS alarm
            WHERE alarm.building_id = span.building_id AND alarm.room_id = span.room_id AND alarm.kind = span.kind
              AND cleared BETWEEN first AND last AND removed IS NULL
            ORDER BY cleared
        ) AS ends FROM bounded AS span
    ), instant AS (
        SELECT
            number, timestamp, heat, heat > limit_ AS beyond, heat <= clear AS calm,
            width_bucket(timestamp, ends) AS ends_before, timestamp <= until AS is_new
        FROM span CROSS JOIN LATERAL (
            -- Of an alarm that a calm reading splits, those that were looked at begin another one.
            SELECT first, least(last, seen_until) AS last UNION ALL SELECT last, last WHERE last > seen_until
        ) AS looked_at CROSS JOIN LATERAL (
            SELECT reading.timestamp, max({_heat("reading")}) AS heat FROM temperatures AS reading
            WHERE {_OF_ITS_ROOM.format("reading")} BETWEEN looked_at.first AND looked_at.last GROUP BY reading.timestamp
        ) AS reading
    ), placed AS (
        SELECT *, count(*) FILTER (WHERE calm) OVER (
            PARTITION BY number ORDER BY timestamp ROWS UNBOUNDED PRECEDING
        ) AS calm_before FROM instant
    ), run AS (
        SELECT
            number, calm_before, ends_before, min(timestamp) FILTER (WHERE calm) AS calm_at,
            min(timestamp) FILTER (WHERE beyond) AS began,
            -- The heat of the first reading beyond: the first elements of arrays decide which one is less.
            (min(ARRAY[extract(epoch FROM timestamp)::float8, heat]) FILTER (WHERE beyond))[2] AS heat,
            lead(min(timestamp) FILTER (WHERE calm)) OVER (
                PARTITION BY number ORDER BY calm_before, ends_before
            ) AS calm_again,
            count(*) FILTER (WHERE is_new) AS count
        FROM placed GROUP BY number, calm_before, ends_before
    )
    SELECT
        number, calm_at, began, ended,
        sign * heat AS temperature,
        lasting = interval '0' OR EXISTS (
            SELECT FROM temperatures AS reading
            WHERE {_OF_ITS_ROOM.format("reading")} >= began + lasting
              AND reading.timestamp < coalesce(ended, 'infinity')
              AND reading.timestamp <= CASE WHEN bound IS NULL THEN horizon ELSE now() END
        ) AS lasts,
        sum(count) OVER () AS readings
    FROM run JOIN span USING (number) CROSS JOIN LATERAL (
        SELECT least(calm_again, ends[ends_before + 1]) AS ended
    ) AS until_
    -- The first calm reading ends an alarm that began before. Where rules have changed, the last one does.
    WHERE began IS NOT NULL OR calm_before <= 1 OR ended IS NULL
    ORDER BY number, calm_before, ends_before
"""  # noqa: S608 - constants
"""The excursions of spans of readings, in order; and for each span its first and its last calm reading.

A row is the number of a span, a Run of its readings, and how many readings all runs have together.
"""


def of_rules(rules: Rules, now: datetime) -> dict[str, Any]:
    """The parameters of whatever compares rooms at an instant. Their numbers are the places of `rules.places`."""
    places, profiles = [*rules.places], [*rules.places.values()]
    numbers = {place: number for number, place in enumerate(places)}
    of_rooms = [place for place in places if place.room_id is not None]
    of_buildings = [place for place in places if place.building_id is not None and place.room_id is None]
    return {
        "rule_buildings": [place.building_id for place in of_rooms],
        "rule_rooms": [place.room_id for place in of_rooms],
        "rule_profiles": [numbers[place] for place in of_rooms],
        "building_rules": [place.building_id for place in of_buildings],
        "building_profiles": [numbers[place] for place in of_buildings],
        "everywhere": numbers.get(Place()),
        "profiles": [*numbers.values()],
        **_limits(profiles),
        **_zones(profiles),
        **_silences(profiles, now),
    }


def _limits(profiles: Sequence[Thresholds]) -> dict[str, Any]:
    """The limits in degrees Celsius, and where a room is calm by all of them; those of `low` with the other sign."""
    parameters: dict[str, Any] = {}
    for kind, sign in SIGN_OF_KIND.items():
        found = [profile.get(kind) for profile in profiles]
        schedules = [each and each.schedule for each in found]
        parameters[f"{kind}_zones"] = [each and each.zone for each in schedules]
        parameters[f"{kind}_hours"] = [each and each.multirange for each in schedules]
        parameters[f"{kind}_limits"] = [each and sign * each.limit for each in found]
        parameters[f"{kind}_clears"] = [each and sign * each.clear for each in found]
        parameters[f"calm_{kind}"] = min((sign * each.clear for each in found if each), default=inf)
    return parameters


def _silences(profiles: Sequence[Thresholds], now: datetime) -> dict[str, Any]:
    """The limits in seconds, and which of them count now."""
    found = [profile.get("silent") for profile in profiles]
    return {
        "calm_silence": min((each.limit for each in found if each), default=FOREVER_SECONDS),
        "silent_limits": [each and each.limit for each in found],
        "silent_now": [bool(each and (each.schedule is None or each.schedule.includes(now))) for each in found],
        "silent_severities": [each and each.severity for each in found],
    }


def of_spans(found: Sequence[Threshold]) -> dict[str, Any]:
    """The parameters of EXCURSIONS that come from thresholds, one for each span of readings."""
    return {
        "signs": [SIGN_OF_KIND[each.kind] for each in found],
        "limits": [SIGN_OF_KIND[each.kind] * each.limit for each in found],
        "clears": [SIGN_OF_KIND[each.kind] * each.clear for each in found],
        "lasting": [each.lasting_seconds for each in found],
        "zones": [each.schedule.zone if each.schedule else None for each in found],
        "hours": [each.schedule.multirange if each.schedule else None for each in found],
    }


def _zones(profiles: Sequence[Thresholds]) -> dict[str, Any]:
    """What is known of the zones of rules: the database may have older rules of these, or lack one."""
    names = {each.schedule.zone for profile in profiles for each in profile.values() if each.schedule}
    changes = [(name, *change) for name in names for change in zones.changes(name)]
    return {
        "zone_names": [name for name, _, _ in changes],
        "zone_changes": [since for _, since, _ in changes],
        "zone_offsets": [offset for _, _, offset in changes],
    }
