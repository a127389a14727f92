"""Periods of time as requests and settings name them: `90m`, `2d`."""

from pydantic_core import core_schema

from shared.readings import rule

SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
DAY = SECONDS["d"]
LONGEST_DAYS = 3_650


def period(longest_days: int = LONGEST_DAYS, **documentation: object) -> core_schema.CoreSchema:
    """The schema of a period, which is validated to its seconds."""

    def seconds(text: str) -> int:
        found = int(text[:-1]) * SECONDS[text[-1]]
        if found > longest_days * DAY:
            raise ValueError
        return found

    return rule(
        core_schema.no_info_after_validator_function(
            seconds, core_schema.str_schema(strict=True, pattern=r"^[1-9][0-9]{0,8}[smhd]$")
        ),
        f"a period of at most {longest_days}d, such as 90m, 24h or 2d",
        **documentation,
    )
