"""The JSON Schema (draft 2020-12) of flow files, made from the models: what editors complete and underline.

model.py (types, descriptions) + jina_keys.py --flow_schema()--> schema.json, kept in the package and checked for drift
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from flowdex_orchestrator.flow.model import EXTENSION, Flow
from flowdex_orchestrator.flow.sections import Executor, FlowSettings, Gateway, Section

__all__ = ["flow_schema", "key_table"]

_SUBSTITUTION = {"$ref": "#/$defs/substitution"}
_TOP: tuple[type[Section], ...] = (FlowSettings, Gateway, Executor)


def flow_schema() -> dict[str, Any]:
    """The schema as a JSON object."""
    definitions = {section.__name__: _section_schema(section) for section in _with_subsections(_TOP)}
    definitions["substitution"] = {
        "type": "string",
        "pattern": r"\$",
        "description": "A variable: ${{ ENV.NAME }}, ${{ CONTEXT.name }}, $NAME or ${NAME}.",
    }
    flow = _section_schema(Flow)
    properties = flow["properties"]
    properties["jtype"] = {"const": "Flow", "description": properties["jtype"]["description"]}
    properties["version"] = {"enum": ["1", "1.0", 1], "description": properties["version"]["description"]}
    properties["with"] = _reference(FlowSettings, properties["with"])
    properties["gateway"] = _reference(Gateway, properties["gateway"])
    for key in ("executors", "deployments"):
        properties[key] = {
            "type": "array",
            "items": {"$ref": f"#/$defs/{Executor.__name__}"},
            "description": properties[key]["description"],
        }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "flowdex flow",
        **flow,
        "required": ["jtype"],
        "patternProperties": {f"^{EXTENSION}": {"description": "Your own, for example a place for YAML anchors."}},
        "$defs": definitions,
    }


def _with_subsections(sections: Iterable[type[Section]]) -> Iterator[type[Section]]:
    for section in sections:
        yield section
        yield from _with_subsections(section.subsections().values())


def key_table(section: type[Section]) -> str:
    """The typed keys of a section as a Markdown table, for the documentation."""
    properties = _section_schema(section)["properties"]
    rows = ["| key | value | default | |", "|---|---|---|---|"]
    for key in section.typed_keys():
        made = properties[key]
        default = _default(made.get("default"))
        shown = f"`{default}`" if default else ""
        rows.append(f"| `{key}` | {_kind(made)} | {shown} | {made['description']} |")
    return "\n".join(rows) + "\n"


def _default(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(_default(item) for item in value)
    return "" if value is None or value == {} else str(value).lower() if isinstance(value, bool) else str(value)


def _kind(schema: dict[str, Any]) -> str:
    """What a value may be, in words."""
    if "enum" in schema:
        return " or ".join(dict.fromkeys(f"`{str(name).lower()}`" for name in schema["enum"]))
    if "anyOf" in schema:
        kinds = [_kind(kind) for kind in schema["anyOf"] if kind != _SUBSTITUTION]
        return " or ".join(dict.fromkeys("list" if kind.startswith("list of") else kind for kind in kinds))
    if "$ref" in schema:
        return "mapping"
    if schema["type"] == "array":
        return f"list of {_kind(schema['items'])}"
    kind = str(schema["type"])
    return {"object": "mapping", "string": "text", "boolean": "true or false"}.get(kind, kind)


def _reference(section: type[Section], prop: dict[str, Any]) -> dict[str, Any]:
    return {"$ref": f"#/$defs/{section.__name__}", "description": prop["description"]}


def _section_schema(section: type[Section]) -> dict[str, Any]:
    """One mapping of the file: its typed keys, other spellings of them, and the keys of Jina that are only accepted."""
    made = section.model_json_schema(by_alias=True)["properties"]
    properties = {
        # A key with a section as its value loses its description on the way.
        key: _property({"description": section.model_fields[name].description, **made[key]})
        for key, name in section.typed_keys().items()
    }
    for alias, key in section.aliases.items():
        if key in properties:
            properties[alias] = {**properties[key], "description": f"Other spelling of {key}.", "deprecated": True}
    for key, description in sorted(section.accepted.items()):
        properties.setdefault(key, {"description": f"{description} Accepted for Jina; flowdex does not act on it."})
    return {
        "type": "object",
        "description": " ".join((section.__doc__ or "").partition("\n\n")[0].split()),
        "properties": properties,
        "additionalProperties": False,
    }


def _property(made: dict[str, Any]) -> dict[str, Any]:
    """Pydantic's schema of a key, with a variable in place of the value allowed."""
    kinds = made.get("anyOf") or [{key: made[key] for key in made if key not in ("description", "default", "title")}]
    kinds = [kind for kind in kinds if kind != {"type": "null"}]
    values: dict[str, Any] = {
        key: made[key] for key in ("description", "default") if key in made and made[key] not in (None, [], ())
    }
    if "$ref" in kinds[0]:
        return {**values, **kinds[0]}
    if any(kind.get("type") == "string" and "enum" not in kind for kind in kinds):
        return {**values, **(kinds[0] if len(kinds) == 1 else {"anyOf": kinds})}
    return {**values, "anyOf": [*kinds, _SUBSTITUTION]}
