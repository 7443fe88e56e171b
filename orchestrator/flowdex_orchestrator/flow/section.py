"""What all mappings of a flow file have in common.

mapping --Section.model_validate--> typed keys | keys of Jina that are only accepted | error for anything else
"""

from __future__ import annotations

from collections.abc import Mapping
from types import UnionType
from typing import Any, ClassVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic_core import PydanticCustomError

from flowdex_orchestrator.flow.findings import nearest
from flowdex_orchestrator.flow.values import expected

__all__ = ["Section"]


class Section(BaseModel):
    """A mapping of a flow file: typed keys, keys of Jina that are only accepted, and nothing else."""

    model_config = ConfigDict(frozen=True, extra="allow", populate_by_name=True)

    accepted: ClassVar[Mapping[str, str]] = {}
    """Keys of Jina that flowdex accepts without acting on them, with their descriptions."""
    aliases: ClassVar[Mapping[str, str]] = {}
    """Other spellings that Jina accepts of keys."""

    @classmethod
    def typed_keys(cls) -> dict[str, str]:
        """The keys that flowdex acts on, as written in YAML, with the attributes they become."""
        return {field.alias or name: name for name, field in cls.model_fields.items()}

    @classmethod
    def known_keys(cls) -> list[str]:
        """All keys that a file may use here."""
        return [*cls.typed_keys(), *cls.aliases, *cls.accepted]

    @classmethod
    def subsections(cls) -> dict[str, type[Section]]:
        """The keys whose values are sections themselves, with their types."""
        found = {}
        for key, name in cls.typed_keys().items():
            annotation = cls.model_fields[name].annotation
            kinds = get_args(annotation) if get_origin(annotation) is UnionType else (annotation,)
            for kind in kinds:
                if isinstance(kind, type) and issubclass(kind, Section):
                    found[key] = kind
        return found

    @classmethod
    def unknown_key(cls, key: str) -> str:
        """The message for a key that does not exist."""
        near = nearest(key, cls.known_keys())
        return f"unknown key{near}" if near else f"unknown key; the usual keys are {', '.join(cls.typed_keys())}"

    @property
    def unused(self) -> list[str]:
        """The keys in use that flowdex accepts without acting on them."""
        return list(self.model_extra or {})

    @model_validator(mode="before")
    @classmethod
    def _keys(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            raise expected("a mapping (key: value)", data)
        typed = cls.typed_keys()
        values: dict[str, Any] = {}
        for key, value in data.items():
            key = cls.aliases.get(key, key)  # noqa: PLW2901 - the same key, as flowdex spells it
            if key not in typed and key not in cls.accepted and key not in cls.model_fields:
                raise PydanticCustomError("unknown_key", "{text}", {"text": f"{key}: {cls.unknown_key(key)}"})
            if value is not None:  # `key:` without a value is as good as no key
                values[key] = value
        return values
