"""OpenAPI documents, made of the schemas that validate and answer requests.

No function imports this: it needs pydantic, which makes JSON Schema of a schema and costs a cold start. What it makes
is committed, and a test compares both.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel, Field, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode
from pydantic_core import CoreSchema

from shared.problems import phrase

VERSION = "1.1.0"
"""Of the API. Its first number is that of the paths, `/v1`; docs/api.md says which change raises which."""
JSON = "application/json"
PROBLEM = "application/problem+json"
_FORMAT_OF_TYPE = {"integer": "int64", "number": "double"}
"""Without them a generated client counts with 32 bits in some languages."""


def _without_default(schema: dict[str, Any]) -> None:
    del schema["default"]


LEFT_OUT: Any = Field(default=None, json_schema_extra=_without_default)
"""For what is not in every answer."""


class Fault(BaseModel):
    """One thing wrong with a request: of which reading (0 is the first), and of which field.

    Of CSV, `line` is where that reading begins (1 is the first line).
    """

    index: int
    line: int = LEFT_OUT
    field: str
    message: str


class Problem(BaseModel):
    """What is wrong, as RFC 9457 has it; `errors` lists the faults of a request that was refused."""

    type: str
    title: str
    status: int
    detail: str
    errors: list[Fault] = LEFT_OUT


class Health(BaseModel):
    """The function is alive."""

    status: str
    message: str


@dataclass(frozen=True, slots=True)
class Content:
    """A body of a media type: its schema, and an example that works."""

    media_type: str
    schema: CoreSchema
    example: Any


@dataclass(frozen=True, slots=True)
class Operation:
    """One method on one path."""

    name: str
    """What generated clients call it."""
    method: str
    path: str
    summary: str
    description: str
    answers: Mapping[HTTPStatus, Sequence[Content]]
    problems: Sequence[HTTPStatus] = ()
    query: CoreSchema | None = None
    query_descriptions: Mapping[str, str] = field(default_factory=dict)
    query_examples: Mapping[str, str | float] = field(default_factory=dict)
    body: Sequence[Content] = ()
    body_required: bool = True
    token: bool = True
    """Whether a token is needed, if the settings list some."""
    tag: str = ""
    """The group that it belongs to, if that is not the function's."""


def schema_of(type_: Any) -> CoreSchema:
    """The schema of a type or model that describes an answer."""
    return TypeAdapter(type_).core_schema


def of_every_function(*, ready: bool) -> list[Operation]:
    """What functions answer beside their own work; `ready` says whether this one has a database."""
    alive = Operation(
        name="getHealth",
        method="get",
        path="/health",
        summary="Whether the function is alive",
        description="Whatever the database or the sink is.",
        answers={HTTPStatus.OK: [Content(JSON, schema_of(Health), {"status": "ok", "message": "Service is healthy"})]},
        problems=[HTTPStatus.METHOD_NOT_ALLOWED],
        token=False,
        tag=OPERATION,
    )
    database = Operation(
        name="getReadiness",
        method="get",
        path="/ready",
        summary="Whether the database answers",
        description="Within a second or two.",
        answers={
            HTTPStatus.OK: [Content(JSON, schema_of(Health), {"status": "ok", "message": "The database answers"})]
        },
        problems=[HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.SERVICE_UNAVAILABLE],
        token=False,
        tag=OPERATION,
    )
    counted = Operation(
        name="getMetrics",
        method="get",
        path="/metrics",
        summary="What was done, for a Prometheus",
        description="What this instance did since it started, in the text format of Prometheus.",
        answers={
            HTTPStatus.OK: [Content("text/plain", schema_of(str), 'temperature_requests_total{status="200"} 1.0\n')]
        },
        problems=[HTTPStatus.METHOD_NOT_ALLOWED],
        tag=OPERATION,
    )
    return [alive, *([database] if ready else []), counted]


OPERATION = "operation"
_TAGS = {
    "average": "Questions about readings.",
    "ingest": "Readings in.",
    "simulate": "Readings that are made up.",
    "watch": "Alarms.",
    OPERATION: "For whoever runs it.",
}


def document(function: str, description: str, operations: Sequence[Operation]) -> dict[str, Any]:
    """The OpenAPI 3.1 document of the operations of a function whose settings list tokens."""
    problem = schema_of(Problem)
    inputs: list[tuple[int, JsonSchemaMode, CoreSchema]] = [(id(problem), "serialization", problem)]
    for operation in operations:
        inputs += [(id(content.schema), "validation", content.schema) for content in operation.body]
        for contents in operation.answers.values():
            inputs += [(id(content.schema), "serialization", content.schema) for content in contents]
        if operation.query:
            inputs.append((id(operation.query), "validation", operation.query))
    references, schemas = GenerateJsonSchema(ref_template="#/components/schemas/{model}").generate_definitions(inputs)
    made = {key: plain(schema) for (key, _), schema in references.items()}
    components: dict[str, Any] = {str(name): plain(schema) for name, schema in schemas.items()}
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        described = _operation(operation, made, components, made[id(problem)])
        described = {"tags": [operation.tag or function], **described}
        paths.setdefault(operation.path, {})[operation.method] = described
    return _whole(f"Temperature monitoring: {function}", description, [function, OPERATION], paths, components)


def together(title: str, description: str, documents: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The documents of functions that are behind one address, as one. Where several have a path, the first answers.

    Raises ValueError for two different schemas of one name: one would replace the other unseen.
    """
    paths: dict[str, Any] = {}
    schemas: dict[str, Any] = {}
    tags: set[str] = set()
    for each in documents:
        paths = {**each["paths"], **paths}
        for name, schema in each["components"]["schemas"].items():
            if schemas.setdefault(name, schema) != schema:
                raise ValueError(f"There are two schemas of the name {name}")
        tags |= {tag["name"] for tag in each["tags"]}
    return _whole(title, description, tags, paths, schemas)


def plain(schema: Any, *, name: bool = False) -> Any:
    """The schema as generators of clients want it.

    Without titles, which say again what the name of a property says; and where the format says that a text is a
    timestamp, without a pattern: the client has no text to hold against it, but an instant. Numbers have 64 bits.
    """
    if isinstance(schema, list):
        return [plain(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    left_out = set() if name else {"title"} | ({"pattern"} if schema.get("format") == "date-time" else set())
    kind = None if name else schema.get("type")
    return {
        **{
            key: plain(value, name=key in {"properties", "$defs"} and not name)
            for key, value in schema.items()
            if key not in left_out
        },
        **({"format": _FORMAT_OF_TYPE[kind]} if kind in _FORMAT_OF_TYPE else {}),
    }


def _whole(
    title: str, description: str, tags: Collection[str], paths: Mapping[str, Any], schemas: Mapping[str, Any]
) -> dict[str, Any]:
    return {
        "openapi": "3.1.0",
        "info": {
            "title": title,
            "description": description,
            "version": VERSION,
            "contact": {"name": "Whoever runs this instance"},
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        # Where `make run` is. A function that answers with this says instead that it is where the answer came from.
        "servers": [{"url": "http://127.0.0.1:8080"}],
        "tags": [{"name": tag, "description": text} for tag, text in _TAGS.items() if tag in tags],
        "paths": paths,
        "components": {
            "schemas": dict(sorted(schemas.items())),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(
    operation: Operation, made: Mapping[int, Any], components: Mapping[str, Any], problem: Any
) -> dict[str, Any]:
    described: dict[str, Any] = {"operationId": operation.name, "summary": operation.summary}
    described["description"] = operation.description
    described["security"] = [{"token": []}] if operation.token else []
    if operation.query:
        query = made[id(operation.query)]
        query = components[query["$ref"].rpartition("/")[2]] if "$ref" in query else query
        described["parameters"] = [_parameter(operation, name, query) for name in query["properties"]]
    if operation.body:
        described["requestBody"] = {"required": operation.body_required, "content": _content(operation.body, made)}
    described["responses"] = {
        str(status.value): {
            "description": phrase(status),
            **({"content": _content(contents, made)} if contents else {}),
        }
        for status, contents in operation.answers.items()
    }
    problems = [
        *operation.problems,
        *([HTTPStatus.UNAUTHORIZED] if operation.token else []),
        # What the rules of a query allow may be longer than the head of a request.
        *([HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE] if operation.query else []),
    ]
    for status in sorted(problems):
        described["responses"][str(status.value)] = {
            "description": phrase(status),
            **({"headers": _HEADERS[status]} if status in _HEADERS else {}),
            "content": {PROBLEM: {"schema": problem}},
        }
    return described


_HEADERS = {
    HTTPStatus.UNAUTHORIZED: {"WWW-Authenticate": {"description": "`Bearer`", "schema": {"type": "string"}}},
    HTTPStatus.SERVICE_UNAVAILABLE: {
        "Retry-After": {
            "description": "After so many seconds it may be sent again",
            "schema": {"type": "integer", "format": "int32"},
        }
    },
}


def _parameter(operation: Operation, name: str, query: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": name,
        "in": "query",
        "description": operation.query_descriptions[name],
        "required": name in query.get("required", []),
        "schema": query["properties"][name],
        **({"example": operation.query_examples[name]} if name in operation.query_examples else {}),
    }


def _content(contents: Sequence[Content], made: Mapping[int, Any]) -> dict[str, Any]:
    return {
        content.media_type: {"schema": made[id(content.schema)], "example": content.example} for content in contents
    }
