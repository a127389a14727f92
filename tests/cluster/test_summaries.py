"""The timer that sums up hours that are over: whenever it runs, answers stay the same."""

import json
from collections.abc import Iterator
from uuid import uuid4

import psycopg
import pytest

from tests.cluster import cluster
from tests.cluster.cluster import average, call, connected, new_room, reading


@pytest.fixture(scope="module")
def reader() -> Iterator[psycopg.Connection]:
    with connected("reader") as connection:
        yield connection


def send(room_id: str, temperature: float, **offset: float) -> None:
    answer = call("ingest", "POST", "/v1/temperature", json=reading(room_id, temperature, **offset))
    assert answer.status_code == 201, answer.text


def summarize() -> None:
    """Have done now what the CronJob does. A job of its own: those of a CronJob are removed when the next has ended."""
    name = f"e2e-{uuid4().hex[:8]}"
    job = cluster.get("cronjob", "summaries")["spec"]["jobTemplate"]
    told = json.dumps({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": job["spec"]})
    cluster.kubectl("create", "--filename", "-", told=told)
    try:
        cluster.kubectl("wait", f"job/{name}", "--for", "condition=Complete", "--timeout", "120s")
    finally:
        cluster.kubectl("delete", "job", name)


def hours(reader: psycopg.Connection, room_id: str) -> list[tuple[float, ...]]:
    """Count, sum, lowest and highest of each hour of the room that is summed up."""
    return reader.execute(
        "SELECT count, sum::float8, min, max FROM room_hours WHERE (building_id, room_id) = ('e2e', %s) ORDER BY hour",
        [room_id],
    ).fetchall()


def test_the_cron_job_sums_up_hours_that_are_over_and_answers_stay_the_same(reader: psycopg.Connection) -> None:
    room_id = new_room()
    for temperature, minutes in ((20.25, 0), (21.0, 59), (25.5, 60)):
        send(room_id, temperature, minutes=minutes)
    before = average(room_id)
    summarize()
    assert hours(reader, room_id) == [(2, 41.25, 20.25, 21.0), (1, 25.5, 25.5, 25.5)]
    assert average(room_id) == before


def test_a_reading_that_comes_after_its_hour_was_summed_up_counts_at_once(reader: psycopg.Connection) -> None:
    room_id = new_room()
    send(room_id, 20.0, minutes=0)
    summarize()
    send(room_id, 24.0, minutes=30)
    answer = average(room_id)
    assert (answer["average_temperature"], answer["count"], answer["max"]) == (22.0, 2, 24.0)
    summarize()
    assert hours(reader, room_id) == [(2, 44.0, 20.0, 24.0)]
    assert average(room_id) == answer
