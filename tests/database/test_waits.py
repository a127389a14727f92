"""What is done beside somebody who holds a lock: all that he does not hold, and the rest when he is done."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import psycopg
from starlette.testclient import TestClient

from local.postgres import ADMIN, OWNER, READER
from tests.support import Urls, wait_for_locks

TOKEN = "an-admin-token-0123456789"
INSERT = "INSERT INTO temperatures VALUES ('B1', %s, %s, 20)"
MORNING = datetime(2024, 12, 1, 8, tzinfo=UTC)


def test_a_room_that_somebody_holds_does_not_keep_the_summaries_of_others_waiting(plain: Urls) -> None:
    with psycopg.connect(plain(OWNER), autocommit=True) as owner, psycopg.connect(plain(OWNER)) as holder:
        for room in ("101", "102"):
            owner.execute(INSERT, (room, MORNING))
        holder.execute("SELECT FROM rooms WHERE room_id = '101' FOR UPDATE")
        owner.execute("SET statement_timeout = '5s'")
        owner.execute("CALL summarize()")
        assert owner.execute("SELECT room_id FROM room_hours").fetchall() == [("102",)]
        holder.commit()
        owner.execute("CALL summarize()")
        assert owner.execute("SELECT room_id FROM room_hours ORDER BY 1").fetchall() == [("101",), ("102",)]


def test_the_time_that_summaries_have_is_over_also_where_many_rooms_are_held(plain: Urls) -> None:
    with psycopg.connect(plain(OWNER), autocommit=True) as owner, psycopg.connect(plain(OWNER)) as holder:
        for room in range(400):
            owner.execute(INSERT, (str(room), MORNING))
        holder.execute("SELECT FROM rooms FOR UPDATE")
        started = time.monotonic()
        # It waits 0.05 seconds for each, 20 for all.
        owner.execute("CALL summarize(0, '{\"seconds\": 1}')")
        assert time.monotonic() - started < 10


def test_who_leaves_the_work_to_another_has_summed_up_nothing(plain: Urls) -> None:
    with psycopg.connect(plain(OWNER), autocommit=True) as owner, psycopg.connect(plain(OWNER)) as busy:
        before = owner.execute("SELECT setval('summarized', 1)").fetchall()
        busy.execute("SELECT pg_advisory_xact_lock(hashtext('temperature summaries of ' || current_schema()))")
        owner.execute("CALL summarize()")
        assert owner.execute("SELECT last_value FROM summarized").fetchall() == before
        busy.commit()
        owner.execute("CALL summarize()")
        assert owner.execute("SELECT last_value FROM summarized").fetchall() > before


def test_of_what_somebody_is_about_to_remove_nothing_is_dropped(plain: Urls) -> None:
    with psycopg.connect(plain(OWNER), autocommit=True) as owner, psycopg.connect(plain(ADMIN)) as remover:
        owner.execute(INSERT, ("101", MORNING))
        owner.execute("CALL summarize()")
        owner.execute("UPDATE upkeep SET retention = '7 days'")
        remover.execute("SELECT begin_removal('B1', '101', %s, NULL, NULL, NULL, 'who', NULL, '1 day')", (MORNING,))
        with ThreadPoolExecutor(1) as pool:
            dropped = pool.submit(lambda: owner.execute("SELECT drop_expired()").fetchall())
            wait_for_locks(plain)
            remover.commit()
            assert dropped.result() == [(False,)]
        assert owner.execute("SELECT FROM temperatures").rowcount == 1


def test_a_removal_is_done_in_its_request_although_somebody_held_it_up_for_a_moment(
    plain: Urls, serve: Callable[..., TestClient]
) -> None:
    own = {"DATABASE_URL": plain(READER), "ADMIN_DATABASE_URL": plain(ADMIN), "ADMIN_TOKENS": TOKEN}
    average = serve("average", **own)
    with psycopg.connect(plain(OWNER), autocommit=True) as owner, psycopg.connect(plain(OWNER)) as holder:
        owner.execute(INSERT, ("101", MORNING))
        # As whoever sums up does, or removes other readings.
        holder.execute("SELECT pg_advisory_xact_lock(hashtext('temperature summaries of ' || current_schema()))")
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(
                average.request,
                "DELETE",
                "/v1/temperature/rooms",
                params={"building_id": "B1"},
                headers={"authorization": f"Bearer {TOKEN}"},
            )
            for _ in range(3):
                wait_for_locks(plain)
            holder.commit()
            assert answer.result().status_code == 200, answer.result().text
        assert answer.result().json()["removed"] == 1
