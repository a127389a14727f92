"""What stands in the environment leads the embedded PostgreSQL and its clients nowhere else."""

from pathlib import Path

import psycopg
import pytest

from tests.local.environment import other_server, variables
from tests.local.machine import answer, place, running, start
from tests.stack import READING

UNUSED = "COLUMNSTORE_AFTER_DAYS does nothing here: only TimescaleDB's community edition"


def sockets(folder: Path) -> str:
    return (folder / "postgres" / "postmaster.pid").read_text().splitlines()[4]


def test_no_variable_leads_make_run_to_another_server_or_changes_what_it_answers(tmp_path: Path) -> None:
    settings = {"RETENTION_DAYS": "30", "COLUMNSTORE_AFTER_DAYS": "7"}
    with other_server() as (port, came), running(tmp_path / "data", **variables(port), **settings) as stack:
        stack.wait_for("Simulator")
        assert any("its own PostgreSQL does not use PGAPPNAME," in line for line in stack.lines)
        assert any(UNUSED in line for line in stack.lines)
        assert stack.post(READING).status_code == 201
        assert (stack.average()["average_temperature"], stack.average()["count"]) == (22.5, 1)
        with psycopg.connect(f"host={sockets(stack.folder)} user=postgres dbname=temperature") as connection:
            assert connection.execute(
                "SELECT current_setting('timezone'), current_setting('log_timezone'), pg_encoding_to_char(encoding),"
                " datcollate FROM pg_database WHERE datname = current_database()"
            ).fetchone() == ("UTC", "UTC", "UTF8", "C")
        assert came == []


@pytest.mark.long
@pytest.mark.parametrize("name", sorted(variables(0)))
def test_no_variable_does_by_itself(name: str) -> None:
    with other_server() as (port, came), place() as folder:
        own = {"PGHOST": "127.0.0.1", "PGPORT": str(port)} if name == "PGPORT" else {name: variables(port)[name]}
        told = answer(start(folder / "postgres", **own))
        assert (told["told"][:3], told["collation"]) == (["UTC", "UTC", "UTF8"], ["C"])
        assert came == []


def test_the_server_sees_nothing_of_the_environment_and_a_folder_of_another_zone_is_in_utc_too() -> None:
    with place() as folder:
        answer(start(folder / "postgres"))
        with (folder / "postgres" / "postgresql.conf").open("a") as settings:
            settings.write("timezone = 'Europe/Berlin'\nlog_timezone = 'Europe/Berlin'\nport = 1\n")
        told = answer(start(folder / "postgres", PGDATA="/nonexistent", SECRET="mine", TZ="Europe/Berlin"))
        assert told["told"][:2] == ["UTC", "UTC"]
        seen = {each.partition("=")[0] for each in told["environment"] if "=" in each}
        assert seen <= {
            "PATH",
            "LD_LIBRARY_PATH",
            "NIX_LD",
            "NIX_LD_LIBRARY_PATH",
            "LC_ALL",
            "TZ",
            "PG_GRANDPARENT_PID",
        }


def test_a_server_that_lets_no_client_in_ends_the_start_with_its_reason() -> None:
    with place() as folder:
        answer(start(folder / "postgres"))
        (folder / "postgres" / "pg_hba.conf").write_text("local all all reject\n")
        done = start(folder / "postgres")
        assert "could not make its database" in done.stderr
        assert "pg_hba.conf rejects connection" in done.stderr
        assert "Traceback" not in done.stderr
