"""Which temperatures are too high or too low, and which silence is too long: ALARM_RULES, or the file of it.

Readings are compared with these thresholds in the database, by `watch.thresholds`.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from pydantic_core import SchemaValidator, ValidationError, core_schema

from shared import settings
from shared.alarms import SEVERITIES, Kind, Severity
from shared.periods import period
from shared.problems import Fault
from shared.readings import IDENTIFIER, TEMPERATURE
from shared.validation import faults, rule, why_not_json
from watch.schedule import Schedule

KIND_OF_THRESHOLD: Mapping[str, Kind] = {"above": "high", "below": "low", "silent": "silent"}
"""The kind of the alarm that each threshold of a rule is for."""
SIGN_OF_KIND: Mapping[Kind, float] = {"high": 1.0, "low": -1.0}
"""Times this sign, a temperature is the greater, the more alarming it is."""

EXAMPLE_RULES = '[{"building_id": "B1", "room_id": "101", "above": 28, "silent": "15m"}]'
FILE_SETTING = "ALARM_RULES_FILE"
MOST_FAULTS_SAID = 5


class Place(NamedTuple):
    """A room; without `room_id` all rooms of a building, and without both all rooms."""

    building_id: str | None = None
    room_id: str | None = None


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
                    "clear": TEMPERATURE,
                    "for": period(),
                    "severity": rule(core_schema.literal_schema([*SEVERITIES]), "info, warning or critical"),
                    "hours": core_schema.str_schema(),
                    "zone": core_schema.str_schema(),
                }.items()
            },
            extra_behavior="forbid",
        )
    )
)


@dataclass(frozen=True, slots=True)
class Threshold:
    """Where a room begins to be alarming, and where it ends."""

    kind: Kind
    limit: float
    """Degrees Celsius beyond which a reading alarms, or seconds of silence."""
    clear: float
    """Degrees Celsius; a reading that is not beyond ends the alarm. Nothing to a silence."""
    lasting_seconds: int
    """It must last so long before it is an alarm."""
    severity: Severity
    schedule: Schedule | None
    """When it counts; always without one."""
    number: int
    """Of its rule; the first is 1."""


Thresholds = Mapping[Kind, Threshold]
"""The thresholds of a room by the kind of their alarms."""


class Rules:
    """The thresholds of every room: those of all rooms, of the rooms of a building, and of single rooms.

    Raises ValueError, which says what is wrong, for rules that contradict themselves or each other.
    """

    def __init__(self, rules: Sequence[Mapping[str, Any]]) -> None:
        given: dict[Place, dict[Kind, Threshold]] = {}
        for number, each in enumerate(rules, 1):
            thresholds = given.setdefault(Place(each.get("building_id"), each.get("room_id")), {})
            for threshold in _thresholds(number, each):
                if threshold.kind in thresholds:
                    raise ValueError(f"rule {number} has a threshold that another rule for the same has too")
                thresholds[threshold.kind] = threshold
        everywhere: Thresholds = given.get(Place(), {})
        self.places: dict[Place, Thresholds] = {}
        for place, own in given.items():
            # If several rules give a room the same threshold, the narrowest one counts.
            wider = given.get(Place(place.building_id), {}) if place.room_id is not None else {}
            self.places[place] = {**everywhere, **wider, **own}
        for resolved in self.places.values():
            _check_agreement(resolved)


def _thresholds(number: int, given: Mapping[str, Any]) -> Iterator[Threshold]:
    """The thresholds of a rule. Raises ValueError for a rule that contradicts itself."""
    names = [name for name in KIND_OF_THRESHOLD if name in given]
    temperatures = [name for name in names if name != "silent"]
    if not names:
        raise ValueError(f"rule {number} must have a threshold: above, below or silent")
    if "room_id" in given and "building_id" not in given:
        raise ValueError(f"rule {number} has a room_id and must have its building_id too")
    if "clear" in given and len(temperatures) != 1:
        raise ValueError(f"rule {number} has clear and must have one of above and below; make two rules")
    if "for" in given and not temperatures:
        raise ValueError(f"rule {number} has for and must have above or below; a silence has its period already")
    if "zone" in given and "hours" not in given:
        raise ValueError(f"rule {number} has a zone and must have hours")
    try:
        schedule = Schedule.parse(given["hours"], given.get("zone", "UTC")) if "hours" in given else None
    except ValueError as error:
        raise ValueError(f"hours of rule {number} {error}") from None
    for name in names:
        limit, clear = float(given[name]), float(given.get("clear", given[name]))
        if name != "silent" and (clear - limit) * SIGN_OF_KIND[KIND_OF_THRESHOLD[name]] > 0:
            raise ValueError(f"rule {number} ends where it has not begun: clear must not be {name} {limit:g}")
        lasting = 0 if name == "silent" else given.get("for", 0)
        yield Threshold(
            KIND_OF_THRESHOLD[name], limit, clear, lasting, given.get("severity", "warning"), schedule, number
        )


def _check_agreement(thresholds: Thresholds) -> None:
    """Raise ValueError if a temperature is alarming both ways, or if none ends an alarm without raising another.

    Thresholds that never count at the same time agree.
    """
    if not (high := thresholds.get("high")) or not (low := thresholds.get("low")):
        return
    if high.schedule and low.schedule and not high.schedule.may_meet(low.schedule):
        return
    if low.limit >= high.limit or low.clear > high.limit or high.clear < low.limit:
        numbers = sorted({high.number, low.number})
        who = f"rule {numbers[0]} leaves" if len(numbers) == 1 else f"rules {numbers[0]} and {numbers[1]} leave"
        raise ValueError(
            f"{who} no temperature that is no alarm: below {low.limit:g} must be less than above {high.limit:g},"
            " and what clears one must not raise the other"
        )


def load() -> Rules:
    """The rules from the environment. Raises SettingError for some that make no sense."""
    name, text = _text()
    try:
        rules = _rules.validate_json(text)
        json.loads(text, object_pairs_hook=_each_once)
        return Rules(rules)
    except ValidationError as error:
        if why := why_not_json(error):
            reason = f"it is not JSON: {why}"
        else:
            reason = "; ".join(map(_sentence, faults(error)[:MOST_FAULTS_SAID]))
    except ValueError as error:
        reason = str(error)
    raise settings.SettingError(f"{name} must be a JSON list of rules such as {EXAMPLE_RULES}: {reason}")


def _each_once(pairs: Sequence[tuple[str, object]]) -> None:
    """Raise ValueError for a name that comes twice in an object: JSON would take the last one for both."""
    names = [name for name, _ in pairs]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"{twice} comes twice in one rule; make two rules")


def _text() -> tuple[str, str]:
    """The name of the setting that has the rules, and these."""
    path = settings.path(FILE_SETTING)
    if not path:
        return "ALARM_RULES", settings.text("ALARM_RULES", "[]")
    if settings.text("ALARM_RULES"):
        raise settings.SettingError(f"ALARM_RULES and {FILE_SETTING} are both set; unset one of them")
    try:
        # Editors of Windows begin a file with a byte order mark.
        return FILE_SETTING, path.read_text(encoding="utf-8-sig").strip() or "[]"
    except (OSError, UnicodeDecodeError) as error:
        raise settings.SettingError(f"{FILE_SETTING} must be a file of rules that can be read: {error}") from None


def _sentence(fault: Fault) -> str:
    if not fault["field"]:
        return fault["message"]
    return f"{fault['field']} of rule {fault['index'] + 1} {fault['message']}"
