"""The API description of a function, made of the schemas that validate and answer its requests.

Only what describes an API imports this: pydantic, which makes JSON Schema of a schema, costs a cold start.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode
from pydantic_core import CoreSchema

PROBLEM = "application/problem+json"


class Fault(BaseModel):
    """One thing wrong with a request."""

    index: int
    field: str
    message: str


class Problem(BaseModel):
    """What is wrong, as RFC 9457 has it; `errors` lists every fault of a request that was refused."""

    type: str
    title: str
    status: int
    detail: str
    errors: list[Fault] | None = None


@dataclass(frozen=True, slots=True)
class Content:
    """A body of a media type: its schema, and an example that works."""

    media_type: str
    schema: CoreSchema
    example: Any


@dataclass(frozen=True, slots=True)
class Operation:
    """One method on one path."""

    method: str
    path: str
    summary: str
    answers: Mapping[HTTPStatus, Sequence[Content]]
    problems: Sequence[HTTPStatus] = ()
    query: CoreSchema | None = None
    query_examples: Mapping[str, str] = field(default_factory=dict)
    body: Sequence[Content] = ()
    body_required: bool = True
    token: bool = True
    """Whether a token is needed, if the settings list some."""


def schema_of(type_: Any) -> CoreSchema:
    """The schema of a type or model that describes an answer."""
    return TypeAdapter(type_).core_schema


def document(function: str, description: str, operations: Sequence[Operation], *, token: bool) -> dict[str, Any]:
    """The OpenAPI 3.1 document of the operations of a function; `token` says whether the settings list some."""
    problem = schema_of(Problem)
    inputs: list[tuple[int, JsonSchemaMode, CoreSchema]] = [(id(problem), "serialization", problem)]
    for operation in operations:
        inputs += [(id(content.schema), "validation", content.schema) for content in operation.body]
        for contents in operation.answers.values():
            inputs += [(id(content.schema), "serialization", content.schema) for content in contents]
        if operation.query:
            inputs.append((id(operation.query), "validation", operation.query))
    references, schemas = GenerateJsonSchema(ref_template="#/components/schemas/{model}").generate_definitions(inputs)
    made = {key: schema for (key, _), schema in references.items()}
    components: dict[str, Any] = {str(name): schema for name, schema in schemas.items()}
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        needed = token and operation.token
        described = _operation(operation, made, components, made[id(problem)], token=needed)
        described = {"tags": [function], **described}
        paths.setdefault(operation.path, {})[operation.method] = described
    return {
        "openapi": "3.1.0",
        "info": {
            "title": f"Temperature monitoring: {function}",
            "description": description,
            "version": "1",
            "license": {"name": "MIT"},
        },
        "paths": paths,
        "components": {
            "schemas": components,
            **({"securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}} if token else {}),
        },
    }


def _operation(
    operation: Operation, made: Mapping[int, Any], components: Mapping[str, Any], problem: Any, *, token: bool
) -> dict[str, Any]:
    described: dict[str, Any] = {"summary": operation.summary, "responses": {}}
    if operation.query:
        query = made[id(operation.query)]
        query = components[query["$ref"].rpartition("/")[2]] if "$ref" in query else query
        described["parameters"] = [
            {
                "name": name,
                "in": "query",
                "required": name in query.get("required", []),
                "schema": schema,
                **({"example": operation.query_examples[name]} if name in operation.query_examples else {}),
            }
            for name, schema in query["properties"].items()
        ]
    if operation.body:
        described["requestBody"] = {"required": operation.body_required, "content": _content(operation.body, made)}
    for status, contents in operation.answers.items():
        described["responses"][str(status.value)] = {
            "description": status.phrase,
            **({"content": _content(contents, made)} if contents else {}),
        }
    if token:
        described["security"] = [{"token": []}]
    for status in [*operation.problems, *([HTTPStatus.UNAUTHORIZED] if token else [])]:
        described["responses"][str(status.value)] = {
            "description": status.phrase,
            "content": {PROBLEM: {"schema": problem}},
        }
    return described


def _content(contents: Sequence[Content], made: Mapping[int, Any]) -> dict[str, Any]:
    return {
        content.media_type: {"schema": made[id(content.schema)], "example": content.example} for content in contents
    }
