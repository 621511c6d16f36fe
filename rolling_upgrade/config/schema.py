"""JSON Schemas of `hosts.yaml` and `services.yaml` for editors: `python -m rolling_upgrade.config.schema docs/schema`.

The schemas come from the models and validators that check the files, so that a new key is in both. They are never
stricter than these, except that words such as `nftables` have one spelling. Checks between keys are left to
`config.check`.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from rolling_upgrade.config.inventory import Inventory
from rolling_upgrade.config.services import Services

#: Where `init` and `config.schema` write the files, relative to hosts.yaml.
SCHEMA_DIRECTORY = "deploy/schema"
#: The schema files, by name.
FILES: dict[str, type[BaseModel]] = {"hosts.json": Inventory, "services.json": Services}
#: Defaults that say nothing: the key may be left out.
_EMPTY: tuple[object, ...] = ("", None, [], {})


class _Generator(GenerateJsonSchema):
    """pydantic's generator for files whose scalars are texts, and in which an empty value is not null."""

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        generated = super().default_schema(schema)
        if generated.get("default") in _EMPTY or isinstance(generated.get("default"), dict):
            generated.pop("default", None)
        return generated

    def dict_schema(self, schema: core_schema.DictSchema) -> JsonSchemaValue:
        keys = self.generate_inner(schema["keys_schema"]) if "keys_schema" in schema else {}
        values = self.generate_inner(schema["values_schema"]) if "values_schema" in schema else {}
        names = {name: value for name, value in keys.items() if name in ("pattern", "enum")}
        return {"type": "object", "additionalProperties": values} | ({"propertyNames": names} if names else {})

    def function_before_schema(self, schema: core_schema.BeforeValidatorFunctionSchema) -> JsonSchemaValue:
        """Use the declared input type. Without one, the validator may accept anything; its result is for completion."""
        accepted: Any = schema.get("json_schema_input_schema")
        if accepted is not None:
            return (
                super().nullable_schema(accepted) if accepted["type"] == "nullable" else self.generate_inner(accepted)
            )
        return {"anyOf": [self.generate_inner(schema["schema"]), {}]}

    def str_schema(self, schema: core_schema.StringSchema) -> JsonSchemaValue:
        return {**super().str_schema(schema), "type": ["string", "number", "boolean"]}


def schema_of(model: type[BaseModel]) -> dict[str, Any]:
    """Return the schema of a file."""
    generated: dict[str, Any] = _described(model.model_json_schema(schema_generator=_Generator))
    generated["patternProperties"] = {"^x-": {}}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | generated


def _described(schema: Any) -> Any:
    """Remove generated titles, and add the accepted values to the descriptions."""
    if isinstance(schema, list):
        return [_described(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {name: value for name, value in schema.items() if name != "title" or not isinstance(value, str)}
    if isinstance(kept.get("description"), str) and isinstance(kept.get("errorMessage"), str):
        value = kept["errorMessage"].removeprefix("expected ")
        kept["description"] = f"{kept['description']}\n\nValue: {value}."
    return {name: _described(value) for name, value in kept.items()}


def schema_comment(schema: Path, file: Path) -> str:
    """Return the comment with which a YAML file names its schema, by a path relative to the file."""
    return f"# yaml-language-server: $schema={os.path.relpath(schema, file.parent)}"


def schema_files() -> dict[str, str]:
    """Return the text of each schema file, by its name."""
    return {name: json.dumps(schema_of(model), indent=2) + "\n" for name, model in FILES.items()}


if __name__ == "__main__":
    for file_name, content in schema_files().items():
        (Path(sys.argv[1]) / file_name).write_text(content, encoding="utf-8")
