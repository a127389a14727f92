"""Which temperatures are too high or too low, and which silence is too long: ALARM_RULES."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic_core import SchemaValidator, ValidationError, core_schema

from shared import settings
from shared.periods import period
from shared.problems import Fault
from shared.readings import IDENTIFIER, TEMPERATURE, faults, not_json

KINDS = {"above": "high", "below": "low", "silent": "silent"}
"""The kind of the alarm that each threshold of a rule is for."""

EXAMPLE = '[{"building_id": "B1", "room_id": "101", "above": 28, "silent": "15m"}]'


_rules = SchemaValidator(
    core_schema.list_schema(
        core_schema.typed_dict_schema(
            {
                name: core_schema.typed_dict_field(schema, required=False)
                for name, schema in {
                    "building_id": IDENTIFIER,
                    "room_id": IDENTIFIER,
                    "above": TEMPERATURE,
                    "below": TEMPERATURE,
                    "silent": period(),
                }.items()
            },
            extra_behavior="forbid",
        )
    )
)


class Rules:
    """The thresholds of every room: those of all rooms, of the rooms of a building, and of single rooms.

    Raises ValueError, which says what is wrong, for rules that contradict themselves.
    """

    def __init__(self, rules: Sequence[Mapping[str, Any]]) -> None:
        self._thresholds: dict[tuple[str | None, str | None], dict[str, float]] = {}
        for number, rule in enumerate(rules, 1):
            given = {KINDS[name]: float(rule[name]) for name in KINDS if name in rule}
            if not given:
                raise ValueError(f"rule {number} must have a threshold: above, below or silent")
            if "room_id" in rule and "building_id" not in rule:
                raise ValueError(f"rule {number} has a room_id and must have its building_id too")
            if rule.get("below", -51) >= rule.get("above", 51):
                raise ValueError(f"rule {number} leaves no temperature that is no alarm: below must be less than above")
            thresholds = self._thresholds.setdefault((rule.get("building_id"), rule.get("room_id")), {})
            if thresholds.keys() & given.keys():
                raise ValueError(f"rule {number} has a threshold that another rule for the same has too")
            thresholds.update(given)

    def thresholds(self, building_id: str, room_id: str) -> Mapping[str, float]:
        """The thresholds of a room by the kind of their alarm; where several rules have one, that of the narrowest."""
        found: dict[str, float] = {}
        for of in ((None, None), (building_id, None), (building_id, room_id)):
            found |= self._thresholds.get(of, {})
        return found

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._thresholds)


def load() -> Rules:
    """The rules from the environment. Raises SettingError for some that make no sense."""
    try:
        return Rules(_rules.validate_json(settings.text("ALARM_RULES", "[]")))
    except ValidationError as error:
        # One that is not JSON has no place in the list.
        problem = not_json(error, "it")
        found = [problem.detail] if problem else [_sentence(fault) for fault in faults(error)[:5]]
        reason = "; ".join(found)
    except ValueError as error:
        reason = str(error)
    raise settings.SettingError(f"ALARM_RULES must be a JSON list of rules such as {EXAMPLE}: {reason}")


def _sentence(fault: Fault) -> str:
    if not fault["field"]:
        return fault["message"]
    return f"{fault['field']} of rule {fault['index'] + 1} {fault['message']}"
