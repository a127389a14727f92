"""Pauses before what failed is tried again."""

import pytest

from shared.backoff import Backoff, retry_after_seconds


def test_pauses_double_up_to_the_longest_and_begin_anew_after_a_success() -> None:
    backoff = Backoff(0.5, 3.0)
    for _ in range(2):
        assert [backoff.pause_seconds() for _ in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]
        backoff.reset()


def test_what_failed_for_ages_waits_no_longer_than_the_longest_pause() -> None:
    assert Backoff(0.5, 60.0, failures=10_000).pause_seconds() == 60.0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120),
        ("", 0),
        ("-1", 0),
        ("soon", 0),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 0),
        ("Sun, 06 Nov 1994 08:49:37 +999999999999", 0),
        ("Mon, 00 Foo 0000 99:99:99 GMT", 0),
        ("9" * 5000, float("inf")),
    ],
)
def test_a_sink_that_asks_for_nonsense_asks_for_nothing(value: str, seconds: float) -> None:
    assert retry_after_seconds(value) == seconds
