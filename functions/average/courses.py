"""Courses of the temperature: averages, time beyond limits, and statistics of readings.

The statement is complete: with values in place of its parameters it can be pasted into psql. docs/summaries.md says how
it covers time.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta, tzinfo
from decimal import Decimal
from math import isqrt
from typing import Any, NamedTuple

from average.intervals import DAY
from average.summaries import STALE
from shared.readings import written

MICROSECONDS_PER_SECOND = 1_000_000
MICROSECONDS_PER_HOUR = 3_600_000_000
_SIGNIFICANT_BITS = 109
"""Twice those of a double, and some."""


class CourseOptions(NamedTuple):
    """What is asked for beside count, lowest and highest."""

    by_time: bool = False
    """Whether the average is one over time, in which a reading holds until the next one of its room."""
    longest_hold: timedelta = DAY
    """For which time it does so at most."""
    above: float | None = None
    """Limits in degrees Celsius: for how long the temperature is above one, or below one."""
    below: float | None = None
    statistics: Sequence[str] = ()
    """`stddev`, `first`, `last`."""

    @property
    def holds(self) -> bool:
        """Whether it is about time, and not about readings only."""
        return self.by_time or self.above is not None or self.below is not None

    @property
    def is_plain(self) -> bool:
        """Whether nothing more than the average of the readings is asked for."""
        return not self.holds and not self.statistics


class Course(NamedTuple):
    """How the temperature went in an interval, or a bucket of one.

    `covered`, `above` and `below` are microseconds, beside each of which is the sum of the temperatures times the
    microseconds that they held. What nobody can know any more, since readings were dropped, is None. The default is
    that of an interval without readings, in which none holds either.
    """

    readings: int = 0
    """How many there are."""
    sum: Decimal | None = None
    min: float | None = None
    max: float | None = None
    covered: Decimal = Decimal(0)
    degree_microseconds: Decimal = Decimal(0)
    sum_of_squares: Decimal | None = None
    first_at: datetime | None = None
    first_temperature: float | None = None
    last_at: datetime | None = None
    last_temperature: float | None = None
    above: Decimal | None = Decimal(0)
    above_degree_microseconds: Decimal = Decimal(0)
    below: Decimal | None = Decimal(0)
    below_degree_microseconds: Decimal = Decimal(0)

    @property
    def average(self) -> float | None:
        """The average of the readings, rounded once, of their sum without any rounding; None if there are none."""
        if self.sum is None or self.min is None or self.max is None:
            return None
        # To divide integers is to round once, to the nearest number there is.
        numerator, denominator = self.sum.as_integer_ratio()
        # The sum is of multiples of 2^-109, and has nothing of what temperatures close to zero are beyond that.
        return min(max(numerator / (denominator * self.readings), self.min), self.max)

    @property
    def average_over_time(self) -> float | None:
        """The average over the time for which a temperature held, None if none did."""
        if not self.covered:
            return None
        numerator, denominator = self.degree_microseconds.as_integer_ratio()
        return numerator / (denominator * int(self.covered))

    @property
    def stddev(self) -> float | None:
        """The standard deviation of the readings, which are all there are (`stddev_pop` in SQL)."""
        if self.sum is None or self.sum_of_squares is None:
            return None
        total, total_of = self.sum.as_integer_ratio()
        squares, squares_of = self.sum_of_squares.as_integer_ratio()
        # Both denominators are powers of two.
        of = max(total_of * total_of, squares_of)
        variance = self.readings * squares * (of // squares_of) - total * total * (of // (total_of * total_of))
        return _root(variance, of * self.readings * self.readings)


def _extreme(temperature: float | None) -> float | None:
    """A lowest or highest temperature, in which zero has no sign.

    0 and -0 are the same reading to PostgreSQL, and which of the two it finds depends on the order.
    """
    return None if temperature is None else temperature + 0.0


def values(course: Course, options: CourseOptions, zone: tzinfo | None) -> dict[str, Any]:
    """What is answered of a course."""
    answer: dict[str, Any] = {
        "average_temperature": course.average_over_time if options.by_time else course.average,
        "count": course.readings,
        "min": _extreme(course.min),
        "max": _extreme(course.max),
    }
    if options.holds:
        answer["covered_seconds"] = _seconds(course.covered)
    if options.above is not None:
        answer["above"] = _beyond(course.above, course.above_degree_microseconds, options.above)
    if options.below is not None:
        answer["below"] = _beyond(course.below, course.below_degree_microseconds, options.below)
    if "stddev" in options.statistics:
        answer["stddev"] = course.stddev
    if "first" in options.statistics:
        answer["first"] = _reading(course.first_at, course.first_temperature, zone)
    if "last" in options.statistics:
        answer["last"] = _reading(course.last_at, course.last_temperature, zone)
    return answer


def columns(options: CourseOptions) -> list[str]:
    """The names of what is answered, as `flat` has them."""
    return list(flat(values(Course(), options, None)))


def flat(answer: Mapping[str, Any]) -> dict[str, Any]:
    """The same for a line of CSV: of `above` and `below` each value, of `first` and `last` the temperature."""
    line: dict[str, Any] = {}
    for name, value in answer.items():
        if name in {"above", "below"}:
            line |= {f"{name}_{part}": value[part] for part in ("seconds", "degree_hours")}
        else:
            line[name] = value["temperature"] if isinstance(value, dict) else value
    return line


def _beyond(microseconds: Decimal | None, degree_microseconds: Decimal, limit: float) -> dict[str, float | None]:
    if microseconds is None:
        return {"seconds": None, "degree_hours": None}
    return {
        "seconds": _seconds(microseconds),
        "degree_hours": _degree_hours(degree_microseconds, microseconds, limit),
    }


def _seconds(microseconds: Decimal) -> float:
    return int(microseconds) / MICROSECONDS_PER_SECOND


def _reading(instant: datetime | None, temperature: float | None, zone: tzinfo | None) -> dict[str, Any] | None:
    return None if instant is None else {"temperature": temperature, "timestamp": written(instant, zone)}


def _degree_hours(degree_microseconds: Decimal, microseconds: Decimal, limit: float) -> float:
    """How far temperatures are from a limit, times how long, in degree hours."""
    numerator, denominator = degree_microseconds.as_integer_ratio()
    limit_numerator, limit_denominator = limit.as_integer_ratio()
    difference = numerator * limit_denominator - limit_numerator * int(microseconds) * denominator
    return abs(difference) / (denominator * limit_denominator * MICROSECONDS_PER_HOUR)


def _root(numerator: int, denominator: int) -> float:
    """The square root of a fraction, rounded once."""
    if numerator <= 0:
        return 0.0
    shift = max(0, _SIGNIFICANT_BITS - (numerator.bit_length() - denominator.bit_length()) // 2)
    scaled, rest = divmod(numerator << 2 * shift, denominator)
    root = isqrt(scaled)
    # A last bit for all that is cut off: to divide integers rounds to the nearest double.
    inexact = rest != 0 or root * root != scaled
    return (2 * root + inexact) / (1 << (shift + 1))


_OF_SUMMARY = b"""
                count, sum, min, max, degree_microseconds, longest_gap, first_at, last_at, last_temperature
                , first_temperature, sum_of_squares -- more
"""
_IS_ENOUGH = b"""
            longest_gap <= %(longest_hold)s
            AND (min <= %(above)s::float8 AND max > %(above)s) IS NOT TRUE -- more
            AND (min < %(below)s::float8 AND max >= %(below)s) IS NOT TRUE -- more
"""
_STATEMENT = b"""
    WITH asked AS MATERIALIZED (
        SELECT
            since, ending, dropped_before, least(ending, now()) AS until,
            ARRAY(SELECT cut FROM unnest(%(bounds)s::timestamptz[] || now()) AS cut ORDER BY cut) AS cuts,
            tstzmultirange(tstzrange(since, ending)) AS everything,
            tstzmultirange(tstzrange(NULL, dropped_before)) AS dropped,
            whole_parts(bounds, '1 hour') + tstzmultirange(tstzrange(NULL, dropped_before) * tstzrange(
                since, date_bin('1 hour', ending + interval '00:59:59.999999', '2000-01-03 00:00+00')
            )) AS hours,
            whole_parts(bounds, '1 day') AS days, whole_parts(bounds, '7 days') AS weeks
        FROM upkeep
        CROSS JOIN (
            SELECT
                date_bin('1 hour', (%(bounds)s)[1] - %(longest_hold)s::interval, '2000-01-03 00:00+00') AS since,
                (%(bounds)s)[cardinality(%(bounds)s)] AS ending
        ) AS first
        CROSS JOIN LATERAL (SELECT since || %(bounds)s AS bounds) AS from_before
    ), room AS MATERIALIZED (
        SELECT
            room_id, stale, days - touched(stale, interval '24:00') AS days,
            weeks * tstzmultirange(tstzrange(NULL, weeks_until)) - touched(stale, interval '168:00') AS weeks
        FROM (
            SELECT room_id, days, weeks, weeks_until, {stale}
            FROM (
                SELECT * FROM rooms WHERE building_id = %(building_id)s::text AND room_id = %(room_id)s::text
                UNION ALL
                SELECT * FROM rooms WHERE building_id = %(building_id)s AND %(room_id)s IS NULL
            ) AS meant CROSS JOIN asked
        ) AS of_building
    ), week AS MATERIALIZED (
        SELECT summary.*, {is_enough} AS is_enough
        FROM room CROSS JOIN unnest(weeks) AS span CROSS JOIN LATERAL (
            SELECT room_id, week, {of_summary} FROM room_weeks
            WHERE building_id = %(building_id)s AND room_weeks.room_id = room.room_id
              AND week >= lower(span) AND week < upper(span) OFFSET 0
        ) AS summary
    ), room_by_days AS MATERIALIZED (
        SELECT room_id, stale, days - (weeks - unclear) AS days, weeks - unclear AS weeks
        FROM (
            SELECT room.*, coalesce(unclear.weeks, '{}') AS unclear
            FROM room LEFT JOIN (
                SELECT room_id, range_agg(tstzrange(week, week + interval '168:00')) AS weeks
                FROM week WHERE is_enough IS NOT TRUE GROUP BY room_id
            ) AS unclear USING (room_id)
        ) AS room
    ), day AS MATERIALIZED (
        SELECT summary.*, {is_enough} AS is_enough
        FROM room_by_days CROSS JOIN unnest(days) AS span CROSS JOIN LATERAL (
            SELECT room_id, day, {of_summary} FROM room_days
            WHERE building_id = %(building_id)s AND room_days.room_id = room_by_days.room_id
              AND day >= lower(span) AND day < upper(span) OFFSET 0
        ) AS summary
    ), room_by_hours AS MATERIALIZED (
        SELECT room_id, weeks + days - unclear AS days, hours - stale - (weeks + days - unclear) AS hours
        FROM (
            SELECT asked.hours, room_by_days.*, coalesce(unclear.days, '{}') AS unclear
            FROM asked CROSS JOIN room_by_days LEFT JOIN (
                SELECT room_id, range_agg(tstzrange(day, day + interval '24:00')) AS days
                FROM day WHERE is_enough IS NOT TRUE GROUP BY room_id
            ) AS unclear USING (room_id)
        ) AS room
    ), hour AS MATERIALIZED (
        SELECT summary.*, hour < dropped_before OR {is_enough} AS is_enough
        FROM asked CROSS JOIN room_by_hours CROSS JOIN unnest(room_by_hours.hours) AS span CROSS JOIN LATERAL (
            SELECT room_id, hour, {of_summary} FROM room_hours
            WHERE building_id = %(building_id)s AND room_hours.room_id = room_by_hours.room_id
              AND hour >= lower(span) AND hour < upper(span) OFFSET 0
        ) AS summary
    ), room_by_readings AS MATERIALIZED (
        SELECT room_id, everything - room_by_hours.days - (room_by_hours.hours - coalesce(unclear.hours, '{}'))
            + everything * dropped AS readings
        FROM asked CROSS JOIN room_by_hours LEFT JOIN (
            SELECT room_id, range_agg(tstzrange(hour, hour + interval '01:00')) AS hours
            FROM hour WHERE is_enough IS NOT TRUE GROUP BY room_id
        ) AS unclear USING (room_id)
    ), summary AS (
        SELECT week AS at, week + interval '168:00' AS until, week.* FROM week WHERE is_enough
        UNION ALL
        SELECT day, day + interval '24:00', day.* FROM day WHERE is_enough
        UNION ALL
        SELECT hour, hour + interval '01:00', hour.* FROM hour WHERE is_enough
    ), piece AS MATERIALIZED (
        SELECT
            begins, ends, held, width_bucket(at, %(bounds)s) AS bucket, room_id, count, sum, min, max,
            covered, degree_microseconds
            , sum_of_squares, first_at, first_temperature, last_at, last_temperature -- more
            , above, above_degree_microseconds, below, below_degree_microseconds -- more
        FROM (
            SELECT
                room_id, at, count, sum, min, max,
                CASE WHEN is_known THEN first_at ELSE at END AS begins,
                CASE WHEN is_known THEN last_at ELSE until END AS ends,
                CASE WHEN is_known THEN last_temperature END AS held,
                covered, CASE WHEN is_known THEN degree_microseconds ELSE 0 END AS degree_microseconds
                , sum_of_squares, first_at, first_temperature, last_at, last_temperature -- more
                , CASE WHEN max <= %(above)s THEN 0 WHEN is_known AND min > %(above)s THEN covered END AS above -- more
                , CASE WHEN is_known AND min > %(above)s THEN degree_microseconds ELSE 0 END -- more
                    AS above_degree_microseconds -- more
                , CASE WHEN min >= %(below)s THEN 0 WHEN is_known AND max < %(below)s THEN covered END AS below -- more
                , CASE WHEN is_known AND max < %(below)s THEN degree_microseconds ELSE 0 END -- more
                    AS below_degree_microseconds -- more
            FROM (
                SELECT
                    *, longest_gap <= %(longest_hold)s AS is_known, CASE
                        WHEN longest_gap <= %(longest_hold)s THEN microseconds(last_at - first_at) ELSE 0
                    END AS covered
                FROM summary
            ) AS summed_up
            UNION ALL
            SELECT
                room_id, at, count, sum, min, max,
                CASE WHEN is_known THEN first_at END, CASE WHEN is_known THEN last_at END,
                CASE WHEN is_known THEN last_temperature END,
                CASE WHEN is_known THEN covered ELSE 0 END, CASE WHEN is_known THEN degree_microseconds ELSE 0 END
                , sum_of_squares, first_at, first_temperature, last_at, last_temperature -- more
                , CASE WHEN is_known THEN above ELSE 0 END -- more
                , CASE WHEN is_known THEN above_degree_microseconds ELSE 0 END -- more
                , CASE WHEN is_known THEN below ELSE 0 END -- more
                , CASE WHEN is_known THEN below_degree_microseconds ELSE 0 END -- more
            FROM (
                SELECT course.*, at >= dropped_before AND at < until AS is_known
                FROM asked CROSS JOIN room_by_readings CROSS JOIN LATERAL courses(
                    %(building_id)s, ARRAY[room_id], readings, cuts, %(longest_hold)s
                    , %(above)s, %(below)s -- more
                ) AS course
            ) AS read
        ) AS piece
    ), followed AS MATERIALIZED (
        SELECT
            bucket, held, greatest(ends, (%(bounds)s)[1]) AS held_from,
            least(
                lead(begins) OVER (PARTITION BY room_id ORDER BY begins, ends), ends + %(longest_hold)s, until
            ) AS held_until
        FROM piece CROSS JOIN asked
    ), hold AS (
        SELECT *, exact_temperature(held) * microseconds AS degree_microseconds
        FROM (
            SELECT bucket, held, microseconds(least(held_until, (%(bounds)s)[bucket + 1]) - held_from)
            FROM followed
            WHERE bucket > 0 AND held IS NOT NULL AND least(held_until, (%(bounds)s)[bucket + 1]) > held_from
            UNION ALL
            SELECT
                next, held,
                microseconds(least(held_until, (%(bounds)s)[next + 1]) - greatest(held_from, (%(bounds)s)[next]))
            FROM followed CROSS JOIN LATERAL generate_series(
                bucket + 1, least(width_bucket(held_until, %(bounds)s), cardinality(%(bounds)s) - 1)
            ) AS next
            WHERE held IS NOT NULL AND held_until > (%(bounds)s)[bucket + 1]
              AND held_until > greatest(held_from, (%(bounds)s)[next])
        ) AS hold OFFSET 0
    )
    SELECT
        bucket, sum(count)::bigint, sum(sum), min(min), max(max), sum(covered), sum(degree_microseconds)
        , CASE WHEN bool_and(is_known) THEN sum(sum_of_squares) END -- more
        , CASE WHEN bool_and(is_known) THEN min(first_at) END -- more
        , CASE WHEN bool_and(is_known) THEN -- more
            (array_agg(first_temperature ORDER BY first_at, first_temperature) FILTER (WHERE %(first)s))[1] -- more
        END -- more
        , CASE WHEN bool_and(is_known) THEN max(last_at) END -- more
        , CASE WHEN bool_and(is_known) THEN -- more
            (array_agg(last_temperature ORDER BY last_at DESC NULLS LAST, last_temperature DESC) -- more
                FILTER (WHERE %(last)s))[1] -- more
        END -- more
        , CASE WHEN bool_and(above IS NOT NULL) THEN sum(above) END, sum(above_degree_microseconds) -- more
        , CASE WHEN bool_and(below IS NOT NULL) THEN sum(below) END, sum(below_degree_microseconds) -- more
    FROM (
        SELECT
            bucket, count, sum, min, max, covered, degree_microseconds
            , first_at IS NOT NULL AS is_known, sum_of_squares -- more
            , first_at, first_temperature, last_at, last_temperature -- more
            , above, above_degree_microseconds, below, below_degree_microseconds -- more
        FROM piece WHERE bucket > 0
        UNION ALL
        SELECT
            bucket, 0, NULL, NULL, NULL, microseconds, degree_microseconds
            , true, NULL, NULL, NULL, NULL, NULL -- more
            , CASE WHEN held > %(above)s THEN microseconds ELSE 0 END -- more
            , CASE WHEN held > %(above)s THEN degree_microseconds ELSE 0 END -- more
            , CASE WHEN held < %(below)s THEN microseconds ELSE 0 END -- more
            , CASE WHEN held < %(below)s THEN degree_microseconds ELSE 0 END -- more
        FROM hold
    ) AS part
    GROUP BY bucket ORDER BY bucket
"""
OF_COURSES = (
    _STATEMENT.replace(b"{stale}", STALE).replace(b"{of_summary}", _OF_SUMMARY).replace(b"{is_enough}", _IS_ENOUGH)
)
"""For a room, or for all rooms of the building where there is no `room_id`; in the buckets between `bounds`, which are
the start of the interval, instants in order, and its end. Each is named by its number from 1.

`asked` has what is whole hours, days and weeks of each bucket, and of the time before the interval from which a reading
may hold. `week`, `day` and `hour` are the summaries of these, and whether they are enough: not where a pause is longer
than readings hold, or where a limit is between the lowest and the highest. Of weeks that are not enough there are days,
of days hours, of hours readings. `piece` is all of these; what is of the future, or came late to readings that were
dropped, does not hold. `followed` is for how long the last reading of each piece holds, and `hold` the same for each
bucket: what is between the pieces.
"""

_ONLY_OF_COURSES = b"-- more"
OVER_TIME = b"\n".join(line for line in OF_COURSES.splitlines() if not line.endswith(_ONLY_OF_COURSES))
"""The same for the question that is asked most, without limits and statistics: without the lines that end in `more`."""
