"""The statements that put readings together, each exact to the reading. docs/summaries.md shows how they cover time.

Each is complete: with values in place of its parameters it can be pasted into psql. A row is a bucket, and the count,
the sum without any rounding, the lowest and the highest of its readings.
"""

from collections.abc import Sequence
from typing import NamedTuple

OF_A_ROOM_WITHOUT_HOURS = b"""
    SELECT %(start)s::timestamptz < dropped_before, coalesce(count, 0), sum, min, max
    FROM upkeep
    LEFT JOIN room_readings(%(building_id)s::text, %(room_id)s::text, %(start)s, %(end)s::timestamptz) ON true
"""
"""For a room, and an interval in which no hour of the summaries fits.

One row always, which says first whether readings of the interval were dropped. Then BY_WIDTH is to be asked.
"""

_ASKED = b"""
    WITH asked AS MATERIALIZED (
        SELECT
            tstzmultirange(tstzrange(%(start)s::timestamptz, %(end)s::timestamptz)) AS everything,
            tstzmultirange(tstzrange(NULL, dropped_before)) AS dropped,
{whole}
        FROM upkeep CROSS JOIN (
            SELECT
{first}
                date_bin('1 hour', %(start)s + interval '00:59:59.999999', '2000-01-03 00:00+00') AS first_hour
        ) AS first
    )
"""
STALE = b"""
        everything * (tstzmultirange(
            CASE WHEN late_from IS NULL THEN 'empty' ELSE tstzrange(late_from, late_to) END,
            CASE WHEN timestamp < summed_until THEN 'empty' ELSE tstzrange(summed_until, NULL) END
        ) - dropped) AS stale
"""
"""The hours of a room that are not summed up yet, as far as they are asked for."""

_OF_LEVEL = b"""
        SELECT summary.* FROM part CROSS JOIN unnest({level}s) AS span CROSS JOIN LATERAL (
            SELECT {level} AS at, count, sum, min, max FROM room_{level}s
            WHERE building_id = %(building_id)s AND room_id = {among}
              AND {level} >= lower(span) AND {level} < upper(span) OFFSET 0
        ) AS summary
        UNION ALL
"""
_QUARTERS = b"""
        SELECT summary.* FROM part CROSS JOIN unnest(quarters) AS span CROSS JOIN LATERAL (
            SELECT at, counts[number], sums[number], mins[number], maxs[number]
            FROM room_hours CROSS JOIN (VALUES (1), (2), (3), (4)) AS quarter (number)
            CROSS JOIN LATERAL (SELECT hour + (number - 1) * interval '00:15' AS at) AS start
            WHERE building_id = %(building_id)s AND room_id = {among}
              AND hour > lower(span) - interval '01:00' AND hour < upper(span)
              AND at >= lower(span) AND at < upper(span) AND counts[number] > 0 OFFSET 0
        ) AS summary
        UNION ALL
"""
_OWN_QUARTERS = b"""
        CROSS JOIN LATERAL (
            SELECT quarters * tstzmultirange(tstzrange(courses_missing_before, NULL)) - dropped - stale
                - {taken} - own_days.days - own_hours.hours AS quarters
        ) AS own_quarters
"""
_OF_A_ROOM = (
    _ASKED
    + b"""
    , room AS (
        SELECT asked.*, weeks_until, {missing}{stale} FROM rooms CROSS JOIN asked
        WHERE building_id = %(building_id)s::text AND room_id = %(room_id)s::text
    ), part AS MATERIALIZED (
        SELECT
            ARRAY[%(room_id)s] AS among, own_weeks.weeks, own_days.days, own_hours.hours, {quarters}
            everything - own_weeks.weeks - own_days.days - own_hours.hours {less_quarters}
                + everything * dropped AS readings
        FROM room
        CROSS JOIN LATERAL (
            SELECT room.weeks * tstzmultirange(tstzrange(NULL, weeks_until))
                - touched(stale, interval '168:00') AS weeks
        ) AS own_weeks
        CROSS JOIN LATERAL (
            SELECT room.days - touched(stale, interval '24:00') - own_weeks.weeks AS days
        ) AS own_days
        CROSS JOIN LATERAL (SELECT room.hours - stale - own_weeks.weeks - own_days.days AS hours) AS own_hours
{own_quarters}
    )
    SELECT
        {bucket},
        sum(count)::bigint, sum(sum), min(min), max(max)
    FROM (
{levels}
{readings}
    ) AS covered
    GROUP BY 1 ORDER BY 1
"""
)
"""`asked` has ranges of time: all of the interval, the time of which readings were dropped, whole hours, days, weeks. A
dropped hour counts where it begins. `stale` are the hours of the room that are not summed up yet; its weeks are put
together before `weeks_until`. `part` is how the interval is covered: by weeks, by days, by hours, and by readings;
where buckets have `bounds`, also by quarters of the hours in which one begins, without hours of a version before that
had none. OFFSET 0 keeps a query apart, so that each span is one range of an index.
"""
_OF_A_BUILDING = (
    _ASKED
    + b"""
    , room AS MATERIALIZED (
        SELECT room_id, {missing}{stale} FROM rooms CROSS JOIN asked WHERE building_id = %(building_id)s::text
    ), building AS MATERIALIZED (
        SELECT days, hours - stale - days AS hours
        FROM (
            SELECT hours, stale, days - touched(stale, interval '24:00') AS days
            FROM asked CROSS JOIN (SELECT range_agg(stale) AS stale FROM room) AS of_every_room
        ) AS of_all_rooms
    ), part AS MATERIALIZED (
        SELECT
            among, own_days.days, own_hours.hours, {quarters}
            everything - building.days - building.hours - own_days.days - own_hours.hours {less_quarters}
                + everything * dropped AS readings
        FROM (SELECT stale, {missing}array_agg(room_id) AS among FROM room GROUP BY {missing}stale) AS alike
        CROSS JOIN asked CROSS JOIN building
        CROSS JOIN LATERAL (
            SELECT asked.days - building.days - touched(stale + building.hours, interval '24:00') AS days
        ) AS own_days
        CROSS JOIN LATERAL (
            SELECT asked.hours - stale - building.days - building.hours - own_days.days AS hours
        ) AS own_hours
{own_quarters}
    )
    SELECT
        {bucket},
        sum(count)::bigint, sum(sum), min(min), max(max)
    FROM (
        SELECT summary.* FROM building CROSS JOIN unnest(days) AS span CROSS JOIN LATERAL (
            SELECT day AS at, count, sum, min, max FROM building_days
            WHERE building_id = %(building_id)s AND day >= lower(span) AND day < upper(span) OFFSET 0
        ) AS summary
        UNION ALL
        SELECT summary.* FROM building CROSS JOIN unnest(hours) AS span CROSS JOIN LATERAL (
            SELECT hour, count, sum, min, max FROM building_hours
            WHERE building_id = %(building_id)s AND hour >= lower(span) AND hour < upper(span) OFFSET 0
        ) AS summary
        UNION ALL
{levels}
{readings}
    ) AS covered
    GROUP BY 1 ORDER BY 1
"""
)
"""The same for all rooms together. `building` is what the summaries of the building cover, which are those of all its
rooms. `part` is what is left, for rooms that are alike; that is little mostly, and they do without weeks.
"""
_FEW = b"""
            (%(bucket)s::interval IS NULL AND cardinality(among) = 1 AND upper(span) - lower(span) <= interval '02:00')
"""
"""Of a ragged end of a room there are few readings mostly. This statement, whose plan is kept, puts them together;
where they are read, a plan is made each time.
"""


class Statements(NamedTuple):
    """The statement for a room, and the one for all rooms of a building together."""

    of_a_room: bytes
    of_a_building: bytes


def _statements(
    *, whole: bytes, weeks: bytes, bucket: bytes, readings: bytes, first: bytes = b"", quarters: bytes = b""
) -> Statements:
    def filled(statement: bytes, among: bytes, taken: bytes, levels: Sequence[bytes], *whole: bytes) -> bytes:
        own_levels = b"".join(_OF_LEVEL.replace(b"{level}", level) for level in levels)
        for name, part in (
            (b"{levels}", own_levels + (quarters and _QUARTERS)),
            (b"{own_quarters}", quarters and _OWN_QUARTERS),
            (b"{quarters}", quarters and b"own_quarters.quarters,"),
            (b"{less_quarters}", quarters and b"- own_quarters.quarters"),
            (b"{missing}", quarters and b"courses_missing_before,"),
            (b"{taken}", taken),
            (b"{among}", among),
            (b"{stale}", STALE),
            (b"{first}", first),
            (b"{whole}", b",".join(filter(None, whole))),
            (b"{bucket}", bucket),
            (b"{readings}", readings),
            (b"{few}", _FEW),
        ):
            statement = statement.replace(name, part)
        return statement

    of_weeks, of_building = b"own_weeks.weeks", b"building.days - building.hours"
    return Statements(
        of_a_room=filled(_OF_A_ROOM, b"%(room_id)s", of_weeks, (b"week", b"day", b"hour"), whole, weeks, quarters),
        of_a_building=filled(_OF_A_BUILDING, b"ANY (among)", of_building, (b"day", b"hour"), whole, quarters),
    )


BY_WIDTH = _statements(
    first=b"""
                date_bin('1 day', %(start)s + interval '23:59:59.999999', '2000-01-03 00:00+00') AS first_day,
                date_bin('7 days', %(start)s + interval '167:59:59.999999', '2000-01-03 00:00+00') AS first_week,
    """,
    whole=b"""
            tstzmultirange(tstzrange(first_hour, greatest(first_hour, CASE
                WHEN %(end)s <= dropped_before
                THEN date_bin('1 hour', %(end)s + interval '00:59:59.999999', '2000-01-03 00:00+00')
                WHEN %(by_hours)s::boolean THEN date_bin('1 hour', %(end)s, '2000-01-03 00:00+00')
                ELSE dropped_before
            END))) AS hours,
            tstzmultirange(tstzrange(first_day, greatest(first_day, CASE
                WHEN %(by_days)s::boolean THEN date_bin('1 day', %(end)s, '2000-01-03 00:00+00')
            END))) AS days
    """,
    weeks=b"""
            tstzmultirange(tstzrange(first_week, greatest(first_week, CASE
                WHEN %(by_weeks)s::boolean THEN date_bin('7 days', %(end)s, '2000-01-03 00:00+00')
            END))) AS weeks
    """,
    bucket=b"greatest(date_bin(%(bucket)s::interval, at, '2000-01-03 00:00+00'), '0001-01-01 00:00+00')",
    readings=b"""
        SELECT NULL, summary.* FROM part CROSS JOIN unnest(readings) AS span
        CROSS JOIN LATERAL room_readings(%(building_id)s, among[1], lower(span), upper(span)) AS summary
        WHERE {few} AND count > 0
        UNION ALL
        SELECT summary.at, count, sum, min, max FROM part CROSS JOIN unnest(readings) AS span
        CROSS JOIN LATERAL readings_summary(%(building_id)s, among, lower(span), upper(span), %(bucket)s) AS summary
        WHERE NOT {few}
    """,
)
"""In buckets of the width `bucket`, each named by its start; without it, all in one."""

BY_BOUNDS = _statements(
    whole=b"""
            whole_parts(%(bounds)s::timestamptz[], '1 hour') + tstzmultirange(
                tstzrange(NULL, dropped_before) * tstzrange(
                    first_hour, date_bin('1 hour', %(end)s + interval '00:59:59.999999', '2000-01-03 00:00+00')
                )
            ) AS hours,
            whole_parts(%(bounds)s, '1 day') AS days
    """,
    weeks=b"whole_parts(%(bounds)s, '7 days') AS weeks",
    quarters=b"whole_parts(%(bounds)s, '15 minutes') AS quarters",
    bucket=b"width_bucket(at, %(bounds)s)",
    readings=b"""
        SELECT summary.* FROM part
        CROSS JOIN LATERAL readings_by_bucket(%(building_id)s, among, readings, %(bounds)s) AS summary
    """,
)
"""In the buckets between `bounds`, which begin with `start` and end with `end`, each named by its number from 1."""
