"""What requests have in common: strict objects, texts, and what is said of those that are wrong."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

__all__ = [
    "PARAMETERS",
    "Id",
    "Ids",
    "JsonObject",
    "Request",
    "Segment",
    "Span",
    "Text",
    "Texts",
    "checked_text",
    "kind",
    "strings",
]


def checked_text(value: Any) -> str:
    """The value, which must be a string that is not blank."""
    if not isinstance(value, str):
        raise PydanticCustomError("string_type", "must be a string, not {kind}", {"kind": kind(value)})
    if not value or value.isspace():
        raise PydanticCustomError("blank", "must not be blank")
    return value


def strings(value: Any) -> list[Any]:
    """The value as a list, which one string alone stands for."""
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list):
        raise PydanticCustomError(
            "list_type", "must be a string or a list of strings, not {kind}", {"kind": kind(value)}
        )
    if not value:
        raise PydanticCustomError("empty", "must not be empty")
    return value


def kind(value: Any) -> str:
    """What JSON calls it."""
    names = {dict: "an object", list: "a list", bool: "a boolean", int: "a number", float: "a number", str: "a string"}
    return names.get(type(value), "null")


_STRING = {"type": "string", "minLength": 1}
_ONE_OR_MANY = {"anyOf": [_STRING, {"type": "array", "items": _STRING, "minItems": 1}]}
Text = Annotated[str, BeforeValidator(checked_text), WithJsonSchema({"type": "string", "minLength": 1})]
Id = Annotated[str, StringConstraints(strict=True, min_length=1)]
Texts = Annotated[list[Text], BeforeValidator(strings), WithJsonSchema(_ONE_OR_MANY)]
Ids = Annotated[list[Id], BeforeValidator(strings), WithJsonSchema(_ONE_OR_MANY)]
Span = Annotated[list[int], Field(min_length=2, max_length=2)]
JsonObject = dict[str, Any]
Segment = Literal["passage", "sentence", "markdown", "document"]


class Request(BaseModel):
    """A request's body: no key but those of the model, and no value of another type."""

    model_config = ConfigDict(extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            raise PydanticCustomError("object_type", "must be a JSON object, not {kind}", {"kind": kind(data)})
        unknown = [key for key in data if key not in cls.model_fields]
        if unknown:
            near = difflib.get_close_matches(unknown[0], cls.model_fields, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(cls.model_fields)}"
            raise PydanticCustomError(
                "unknown_key", "unknown key {key}; {hint}", {"key": repr(unknown[0]), "hint": hint}
            )
        return data


PARAMETERS: Any = Field(
    default_factory=dict,
    description="Further parameters for the executors; an object under an executor's name is for that one alone.",
)
