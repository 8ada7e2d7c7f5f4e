"""TypeScript types for the API's answers: ``python -m tests.api.page_types``.

The page's JavaScript is checked against ``api/web/openapi.d.ts``, which is written from
the API's OpenAPI description: an interface for each schema that a JSON answer uses,
and ``Paths``, with each GET's parameters (of its path and its query) and its answer.
"""

import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from chirpwatch.api.app import create_app

FILE = Path(__file__).parents[2] / "api" / "web" / "openapi.d.ts"
HEADER = "// Written by `python -m tests.api.page_types` from the API's description.\n"
REFERENCE = "#/components/schemas/"
PLAIN = {
    "boolean": "boolean",
    "integer": "number",
    "null": "null",
    "number": "number",
    "string": "string",
}

Schema = Mapping[str, Any]


def description() -> dict[str, Any]:
    """The API's OpenAPI description."""
    with tempfile.TemporaryDirectory() as folder:
        return create_app(f"{folder}/results.db").openapi()


def declarations(api: Schema) -> str:
    """TypeScript declarations of the API's types."""
    schemas = api["components"]["schemas"]
    names = {"Problem"}
    paths = []
    for path, methods in api["paths"].items():
        if "get" not in methods:
            continue
        operation = methods["get"]
        content = operation["responses"]["200"]["content"]
        if "application/json" in content:
            answer = content["application/json"]["schema"]
            names |= set(_references(answer, schemas))
            paths.append(_path(path, operation.get("parameters", []), answer))
    parts = [_interface(name, _properties(schemas[name])) for name in sorted(names)]
    return HEADER + "".join([*parts, _interface("Paths", paths)])


def _path(path: str, parameters: Sequence[Schema], answer: Schema) -> str:
    members = "".join(f"\n      {_parameter(one)}" for one in parameters)
    asked = f"{{{members}\n    }}" if members else "Record<string, never>"
    return (
        f'"{path}": {{\n    parameters: {asked};\n    answer: {_type(answer)};\n  }};'
    )


def _interface(name: str, members: list[str]) -> str:
    lines = "".join(f"  {member}\n" for member in members)
    return f"\nexport interface {name} {{\n{lines}}}\n"


def _properties(schema: Schema) -> list[str]:
    required = schema.get("required", [])
    return [
        f"{name}{'' if name in required else '?'}: {_type(value)};"
        for name, value in schema["properties"].items()
    ]


def _parameter(parameter: Schema) -> str:
    # Numbers cannot hold nanosecond times exactly. A parameter cannot be null.
    kind = _type(parameter["schema"], integer="number | bigint").removesuffix(" | null")
    mark = "" if parameter.get("required") else "?"
    return f"{parameter['name']}{mark}: {kind};"


def _type(schema: Schema, integer: str = "number") -> str:
    """TypeScript type of a schema."""
    if "$ref" in schema:
        return str(schema["$ref"]).removeprefix(REFERENCE)
    if "enum" in schema:
        return " | ".join(f'"{value}"' for value in schema["enum"])
    if "anyOf" in schema:
        return " | ".join(_type(one, integer) for one in schema["anyOf"])
    if schema["type"] == "array":
        item = _type(schema["items"], integer)
        return f"({item})[]" if "|" in item else f"{item}[]"
    if schema["type"] == "object":
        values = schema.get("additionalProperties") or next(
            iter(schema["patternProperties"].values())
        )
        return f"Record<string, {_type(values, integer)}>"
    return integer if schema["type"] == "integer" else PLAIN[schema["type"]]


def _references(schema: Schema, schemas: Schema) -> Iterator[str]:
    """Names of the schemas that a schema uses, directly or through others."""
    for name in re.findall(f"{REFERENCE}(\\w+)", repr(schema)):
        yield name
        yield from _references(schemas[name], schemas)


if __name__ == "__main__":
    FILE.write_text(declarations(description()))
