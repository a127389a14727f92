"""The settings of a function that sends CloudEvents to a sink."""

from hashlib import sha256

from pydantic_core import SchemaValidator, ValidationError, core_schema

from shared import settings

_overrides = SchemaValidator(
    core_schema.typed_dict_schema(
        {
            "extensions": core_schema.typed_dict_field(
                core_schema.dict_schema(
                    core_schema.str_schema(strict=True, pattern="^[a-z0-9]+$"), core_schema.str_schema(strict=True)
                ),
                required=False,
            )
        }
    )
)


def extensions() -> dict[str, str]:
    """The attributes that K_CE_OVERRIDES, set by Knative's SinkBinding, adds to every event."""
    try:
        overrides: dict[str, dict[str, str]] = _overrides.validate_json(settings.text("K_CE_OVERRIDES", "{}"))
    except ValidationError:
        raise settings.SettingError(
            'K_CE_OVERRIDES must be JSON such as {"extensions": {"name": "value"}}, the names of a-z and 0-9 only'
        ) from None
    return overrides.get("extensions", {})


def patience() -> int:
    """Seconds that a sink may take nothing before it is given up: SINK_PATIENCE."""
    return settings.number("SINK_PATIENCE", 30, least=1, most=600)


def url(name: str) -> str:
    """Where events go: K_SINK, set by Knative's SinkBinding, else the setting of that name; may be empty."""
    return settings.text("K_SINK") or settings.text(name)


def digest(url: str) -> str:
    """What stands for a sink in the database: its URL may hold what nobody is to read there."""
    return sha256(url.encode()).hexdigest()
