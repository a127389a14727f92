"""Pauses before what failed is tried again."""

from shared.backoff import Backoff


def test_pauses_double_up_to_the_longest_and_begin_anew_after_a_success() -> None:
    backoff = Backoff(0.5, 3.0)
    for _ in range(2):
        assert [backoff.pause_seconds() for _ in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]
        backoff.reset()


def test_what_failed_for_ages_waits_no_longer_than_the_longest_pause() -> None:
    assert Backoff(0.5, 60.0, failures=10_000).pause_seconds() == 60.0
