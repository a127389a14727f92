"""PostgreSQL that ends by itself is started again, without a flood of words, whatever stands in its way."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest

from local import keeper
from local.keeper import Keeper
from local.postgres import Postgres
from tests.local.machine import place, serving
from tests.support import wait_until


@contextmanager
def kept(server: Postgres) -> Iterator[list[str]]:
    """Keep the server running; yields what is said."""
    said: list[str] = []
    stopping = threading.Event()
    thread = threading.Thread(target=Keeper(server, said.append).keep, args=(stopping,))
    thread.start()
    try:
        yield said
    finally:
        stopping.set()
        server.give_up()
        thread.join()


def answers(server: Postgres) -> bool:
    try:
        psycopg.connect(server.url()).close()
    except psycopg.OperationalError:
        return False
    return True


def test_what_stands_in_the_way_is_said_once_tried_ever_less_often_and_outlived() -> None:
    with place() as folder, serving(folder / "postgres") as server:
        control, hidden = server.folder / "global" / "pg_control", folder / "pg_control"
        control.rename(hidden)
        server.process.kill()
        with kept(server) as said:
            began = time.monotonic()
            wait_until(lambda: server.log.read_text().count("could not find the database system") == 3)
            # After a second, and after two more.
            assert time.monotonic() - began > 3
            assert said[0] == "PostgreSQL    ended by itself; starting it again"
            assert "could not start on" in said[1]
            assert len(said) == len(set(said)) <= 3
            hidden.rename(control)
            wait_until(lambda: answers(server))


def test_a_server_that_ends_for_the_third_time_in_a_row_is_said_to_end_again_and_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def is_said() -> bool:
        return any("ends again and again" in line for line in said)

    def is_forgotten() -> bool:
        return said.count("PostgreSQL    ended by itself; starting it again") == 2

    with place() as folder, serving(folder / "postgres") as server, kept(server) as said:
        for _ in range(3):
            wait_until(lambda: answers(server))
            assert not is_said()
            ended = server.process
            ended.kill()
            wait_until(lambda ended=ended: server.process is not ended)  # type: ignore[misc]
        assert is_said()
        assert not is_forgotten()
        # Once it has run for a while, all begins anew.
        monkeypatch.setattr(keeper, "STEADY_SECONDS", 0)
        wait_until(lambda: answers(server))
        time.sleep(3 * keeper.LOOK_SECONDS)
        server.process.kill()
        wait_until(is_forgotten)


def test_an_error_of_the_system_does_not_end_it() -> None:
    with place() as folder, serving(folder / "postgres") as server, kept(server) as said:
        kept_log = folder / "kept.log"
        server.log.rename(kept_log)
        server.log.mkdir()
        server.process.kill()
        wait_until(lambda: any("Is a directory" in line for line in said))
        server.log.rmdir()
        wait_until(lambda: answers(server))
        assert all("Traceback" not in line for line in said)


def test_a_start_that_is_under_way_does_not_hold_up_the_end() -> None:
    with place() as folder, serving(folder / "postgres") as server:
        server.process.kill()
        server.process.wait()
        failure: list[BaseException] = []

        def start() -> None:
            try:
                server.start()
            except SystemExit as error:
                failure.append(error)

        server.give_up()
        thread = threading.Thread(target=start)
        thread.start()
        thread.join(20)
        assert [str(each) for each in failure] == ["PostgreSQL was still starting"]
