"""The words for alarms, the same for all that raise, send and list them."""

from typing import Literal, get_args

Kind = Literal["high", "low", "silent"]
"""Too warm, too cold, or without readings for too long."""
Severity = Literal["info", "warning", "critical"]
State = Literal["open", "cleared"]
"""Of an alarm now."""
Transition = Literal["raised", "cleared"]
"""A change of an alarm. A sink is told of each."""

KINDS: tuple[Kind, ...] = get_args(Kind)
SEVERITIES: tuple[Severity, ...] = get_args(Severity)
STATES: tuple[State, ...] = get_args(State)
