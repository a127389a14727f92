"""Validation: the rules that inputs keep, and what is answered where they do not.

The rules are pydantic-core schemas, not pydantic models: the same validation without importing pydantic, which every
cold start would pay for. `openapi` makes JSON Schema of them.
"""

from http import HTTPStatus

from pydantic_core import ErrorDetails, ValidationError, core_schema

from shared.problems import Fault, Problem, fault


def rule(schema: core_schema.CoreSchema, must: str, **documentation: object) -> core_schema.CoreSchema:
    """The schema with a message that says what the value must be, and with keywords for its JSON Schema."""
    return core_schema.custom_error_schema(
        schema,
        custom_error_type="invalid",
        custom_error_message=f"must be {must}",
        metadata={"pydantic_js_updates": documentation},
    )


_NUMBER_PATTERN = r"^[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?$"


def of_text(number: core_schema.CoreSchema) -> core_schema.CoreSchema:
    """The schema of text that holds the number; as JSON Schema it is the number.

    Without the pattern, pydantic takes what Python has for a number, such as 1_000.
    """
    text = core_schema.chain_schema([core_schema.str_schema(pattern=_NUMBER_PATTERN), number])
    return core_schema.json_or_python_schema(number, text)


def details(error: ValidationError) -> list[ErrorDetails]:
    """All that pydantic says is wrong, without what was sent, which may be much."""
    return error.errors(include_url=False, include_context=False, include_input=False)


def faults(error: ValidationError) -> list[Fault]:
    """Every fault that validation found, in the order of the input."""
    found: list[Fault] = []
    for each in details(error):
        location = list(each["loc"])
        index = location.pop(0) if location and isinstance(location[0], int) else 0
        message = "is not known here" if each["type"] == "extra_forbidden" else each["msg"]
        found.append(fault(".".join(map(str, location)), message, int(index)))
    return found


def only_error(error: ValidationError) -> ErrorDetails | None:
    """The only error that validation found, None if there are more. To list ten thousand would take long."""
    return details(error)[0] if error.error_count() == 1 else None


def why_not_json(error: ValidationError) -> str | None:
    """Why the whole input, and not just a value in it, is not JSON; None if it is."""
    first = only_error(error)
    if first is None or first["type"] != "json_invalid" or first["loc"]:
        return None
    return first["msg"].removeprefix("Invalid JSON: ")


def not_json(error: ValidationError) -> Problem | None:
    """Problem 400 of a body that is not JSON; None if it is."""
    why = why_not_json(error)
    return Problem(HTTPStatus.BAD_REQUEST, f"The body is not JSON: {why}") if why else None
