"""The cover of an interval, without a database."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from average.intervals import DAY, EPOCH, HOUR, Segment, cover

MINUTES = timedelta(minutes=2)
instants = st.datetimes(timezones=st.just(UTC))
widths = st.sampled_from([[DAY, HOUR, MINUTES], [DAY, HOUR, timedelta(minutes=15)], [DAY, HOUR], [HOUR], []])


@given(instants, instants, widths)
def test_a_cover_has_no_gap_and_no_overlap(start: datetime, end: datetime, widths: list[timedelta]) -> None:
    segments = cover(start, end, widths)
    assert all(segment.start < segment.end for segment in segments)
    assert all(left.end == right.start for left, right in pairwise(segments))
    if start < end:
        assert (segments[0].start, segments[-1].end) == (start, end)
    else:
        assert segments == []


@given(instants, instants, widths)
def test_a_segment_is_made_of_whole_buckets_and_no_wider_bucket_fits_beside_it(
    start: datetime, end: datetime, widths: list[timedelta]
) -> None:
    for segment in cover(start, end, widths):
        if segment.width:
            assert (segment.start - EPOCH) % segment.width == (segment.end - EPOCH) % segment.width == timedelta(0)
        for wider in widths:
            if segment.width and wider <= segment.width:
                break
            first = segment.start + (EPOCH - segment.start) % wider if segment.end - segment.start >= wider else None
            assert first is None or first + wider > segment.end


@given(instants, st.integers(1, 20))
def test_the_number_of_buckets_grows_with_the_logarithm_of_the_interval(start: datetime, doublings: int) -> None:
    length = min(timedelta(minutes=1) * 2**doublings, datetime.max.replace(tzinfo=UTC) - start)
    segments = cover(start, start + length, [DAY, HOUR, MINUTES])
    assert len(segments) <= 7
    assert sum((s.end - s.start) // s.width for s in segments if s.width and s.width < DAY) <= 2 * (23 + 29)


def test_a_cover_by_example() -> None:
    day = datetime(2024, 12, 1, tzinfo=UTC)
    start, end = day - timedelta(hours=1, minutes=3), day + timedelta(days=2, minutes=2, microseconds=1)
    assert cover(start, end, [DAY, HOUR, MINUTES]) == [
        Segment(None, start, start + timedelta(minutes=1)),
        Segment(MINUTES, start + timedelta(minutes=1), day - HOUR),
        Segment(HOUR, day - HOUR, day),
        Segment(DAY, day, day + 2 * DAY),
        Segment(MINUTES, day + 2 * DAY, day + 2 * DAY + MINUTES),
        Segment(None, day + 2 * DAY + MINUTES, end),
    ]
