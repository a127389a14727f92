"""What an operator chooses about the schema."""

from dataclasses import dataclass
from datetime import timedelta

from migrations.edition import Edition
from shared import conninfo, settings


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of one run of the migrations."""

    url: str
    """The database, as its owner: DATABASE_URL; without it libpq's own variables count (PGHOST ...)."""
    bucket: timedelta
    """Width of a bucket of `avg_temperature_time_interval`: BUCKET_MINUTES, a divisor of 60. 15 suits production."""
    columnstore_after: timedelta | None
    """Age from which readings are kept in TimescaleDB's columnstore: COLUMNSTORE_AFTER_DAYS, 0 for never."""
    retention: timedelta | None
    """Age from which readings are dropped, their averages kept: RETENTION_DAYS, 0 for never."""
    writer: str
    """Role that stores readings: WRITER_ROLE."""
    reader: str
    """Role that reads them: READER_ROLE."""
    watcher: str
    """Role that raises alarms about them: WATCHER_ROLE."""
    admin: str
    """Role that removes readings: ADMIN_ROLE."""
    monitor: str
    """Role that sees how the database is: MONITOR_ROLE."""
    standbys: int
    """Standbys that are to follow the primary; fewer are a fault: STANDBYS."""
    require_timescaledb: bool
    """Whether to refuse a database without TimescaleDB, or without it yet: REQUIRE_TIMESCALEDB."""

    @property
    def roles(self) -> tuple[str, ...]:
        """All roles that get something."""
        return self.writer, self.reader, self.watcher, self.admin, self.monitor

    def unused(self, edition: Edition) -> str:
        """A sentence about the settings that do nothing on this edition; empty if all do what they say."""
        if edition is Edition.COMMUNITY or not self.columnstore_after:
            return ""
        return (
            "COLUMNSTORE_AFTER_DAYS does nothing here: only TimescaleDB's community edition compresses readings, and"
            f" this is {edition.value}"
        )


def load() -> Settings:
    """The settings from the environment. Raises SettingError for one that cannot be used."""
    minutes = settings.number("BUCKET_MINUTES", 2, least=1, most=60)
    if 60 % minutes:
        raise settings.SettingError(
            f"BUCKET_MINUTES must divide 60, so that hours are made of whole buckets; {minutes} does not"
        )
    retention = settings.number("RETENTION_DAYS", 0, least=0, most=36_500)
    if 0 < retention < 7:
        raise settings.SettingError(
            "RETENTION_DAYS must be 0 or at least 7: the averages of a day need its readings for a while"
        )
    columnstore = settings.number("COLUMNSTORE_AFTER_DAYS", 0, least=0, most=36_500)
    return Settings(
        url=conninfo.load(),
        bucket=timedelta(minutes=minutes),
        columnstore_after=timedelta(days=columnstore) or None,
        retention=timedelta(days=retention) or None,
        writer=settings.text("WRITER_ROLE", "temperature_writer"),
        reader=settings.text("READER_ROLE", "temperature_reader"),
        watcher=settings.text("WATCHER_ROLE", "temperature_watcher"),
        admin=settings.text("ADMIN_ROLE", "temperature_admin"),
        monitor=settings.text("MONITOR_ROLE", "temperature_monitor"),
        standbys=settings.number("STANDBYS", 0, least=0, most=100),
        require_timescaledb=settings.switch("REQUIRE_TIMESCALEDB"),
    )
