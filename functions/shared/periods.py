"""Periods of time as requests and settings name them: `90m`, `2d`."""

from pydantic_core import core_schema

from shared.validation import rule

UNIT_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
DAY_SECONDS = UNIT_SECONDS["d"]
LONGEST_PERIOD_DAYS = 3_650


def period(
    longest_days: int = LONGEST_PERIOD_DAYS, *, or_zero: bool = False, **documentation: object
) -> core_schema.CoreSchema:
    """The schema of a period, which is validated to its seconds; `0` is one too if `or_zero`."""

    def seconds(text: str) -> int:
        if text == "0":
            return 0
        found = int(text[:-1]) * UNIT_SECONDS[text[-1]]
        if found > longest_days * DAY_SECONDS:
            raise ValueError
        return found

    pattern = "^(0|[1-9][0-9]{0,8}[smhd])$" if or_zero else "^[1-9][0-9]{0,8}[smhd]$"
    return rule(
        core_schema.no_info_after_validator_function(seconds, core_schema.str_schema(strict=True, pattern=pattern)),
        f"{'0, or ' if or_zero else ''}a period of at most {longest_days}d, such as 90m, 24h or 2d",
        **documentation,
    )
