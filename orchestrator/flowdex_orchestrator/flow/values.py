"""The types of a flow file's values: what each key takes, how it is normalised, and the one sentence when it is wrong.

    YAML value --parse--> Python value | "expected a positive integer, got 'two'"

Each is an `Annotated` type whose parser accepts what Jina accepts there (a number may be written as a string, one item
in place of a list) and whose JSON Schema tells editors the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeVar

from pydantic import PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from flowdex_orchestrator.flow.findings import nearest

__all__ = [
    "POLLING_NAMES",
    "PROTOCOL_NAMES",
    "Environment",
    "Flag",
    "Gpus",
    "Hosts",
    "LogFormat",
    "LogLevel",
    "Mapped",
    "Mappings",
    "Milliseconds",
    "Origins",
    "Polling",
    "Ports",
    "PositiveInteger",
    "Protocols",
    "Quantities",
    "Quantity",
    "Retries",
    "Roles",
    "SecretKeys",
    "ServiceType",
    "Share",
    "Strings",
    "Text",
    "Texts",
    "Uses",
    "choice",
    "expected",
    "whole_number",
]

T = TypeVar("T")
PROTOCOL_NAMES = ("grpc", "http", "websocket", "bert")
POLLING_NAMES = ("ANY", "ALL")
ROLE_NAMES = ("search", "index", "admin")
LOG_FORMATS = ("text", "json")
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
SERVICE_TYPES = ("ClusterIP", "NodePort", "LoadBalancer")
_QUANTITY = r"[0-9]+(\.[0-9]+)?([eE][0-9]+|m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?"
_ORIGIN = r"[a-z][a-z0-9+.-]*://[^/?#\s]+"
_SECRET_KEY = r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[-._a-zA-Z0-9]+"  # nosec B105 # a pattern
_WHOLE = re.compile(r"[+-]?[0-9]+")
_MAX_SHOWN = 60


def expected(what: str, value: Any, hint: str = "") -> PydanticCustomError:
    """The error for a value of the wrong kind."""
    shown = repr(value)
    if len(shown) > _MAX_SHOWN:
        shown = shown[: _MAX_SHOWN - 3] + "..."
    return PydanticCustomError("expected", "{text}", {"text": f"expected {what}, got {shown}{hint}"})


def whole_number(value: Any, what: str, low: int, high: int | None = None) -> int:
    """The value as an integer from `low` to `high`, which may be written as a string."""
    number: int | None = None
    if isinstance(value, int) and not isinstance(value, bool):
        number = value
    elif isinstance(value, str) and len(value) < 20 and _WHOLE.fullmatch(value.strip()):
        number = int(value)
    if number is None or number < low or (high is not None and number > high):
        raise expected(what, value)
    return number


def _one_or_more(value: Any, item: Callable[[Any], T]) -> tuple[T, ...]:
    items = value if isinstance(value, (list, tuple)) else [value]
    return tuple(item(entry) for entry in items)


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        hint = "; quote it" if isinstance(value, (int, float)) else ""
        raise expected("a text", value, hint)
    return value


def _flag(value: Any) -> bool:
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if not isinstance(value, bool):
        raise expected("true or false", value)
    return value


def _origins(value: Any) -> tuple[str, ...]:
    if isinstance(value, bool) or (isinstance(value, str) and value.lower() in ("true", "false")):
        return ("*",) if _flag(value) else ()
    return _one_or_more(value, _origin)


def _origin(value: Any) -> str:
    if value == "*" or (isinstance(value, str) and re.fullmatch(_ORIGIN, value)):
        return str(value)
    raise expected("true, false, or origins such as https://app.example.com", value)


def _roles(value: Any) -> dict[str, str]:
    found = {}
    for endpoint, role in _mapping(value).items():
        if not isinstance(endpoint, str) or not endpoint.startswith("/"):
            raise expected("endpoints that begin with /, each with its role", endpoint)
        found[endpoint] = choice(role, ROLE_NAMES, f"a role for {endpoint}")
    return found


def _port(value: Any) -> int:
    return whole_number(value, "a port (0 to 65535; 0 takes any free one)", 0, 65535)


def _ports(value: Any) -> tuple[int, ...]:
    if isinstance(value, str) and "," in value:  # Jina reads '51000,51001' so
        value = value.split(",")
    return _one_or_more(value, _port)


def choice(value: Any, names: tuple[str, ...], what: str) -> str:
    """The one of `names` that the value is, in capitals or not."""
    for name in names:
        if isinstance(value, str) and value.lower() == name.lower():
            return name
    hint = nearest(value, [name.lower() for name in names]) if isinstance(value, str) else ""
    raise expected(f"{what} ({', '.join(names)})", value, hint)


def _protocols(value: Any) -> tuple[str, ...]:
    return _one_or_more(value, lambda item: choice(item, PROTOCOL_NAMES, "a protocol"))


def _hosts(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):  # Jina reads 'a,b' as two hosts
        value = [part.strip() for part in value.split(",")]
    return _one_or_more(value, _text)


def _mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise expected("a mapping (key: value)", value)
    return dict(value)


def _environment(value: Any) -> dict[str, str]:
    variables = {}
    for name, item in _mapping(value).items():
        if isinstance(item, (list, dict)) or item is None:
            raise expected(f"a text or number for the variable {name}", item)
        if not name or "=" in name or "\0" in name or "\0" in str(item):
            raise expected("a name and value that the system accepts as an environment variable", name)
        variables[name] = str(item)
    return variables


def _uses(value: Any) -> str | dict[str, Any]:
    if isinstance(value, Mapping):
        return dict(value)
    if not isinstance(value, str) or not value.strip():
        raise expected("package.Class, a config.yml or an inline mapping with jtype", value)
    return value.strip()


def _polling(value: Any) -> str | dict[str, str]:
    if isinstance(value, Mapping):
        return {endpoint: choice(name, POLLING_NAMES, "a polling") for endpoint, name in value.items()}
    return choice(value, POLLING_NAMES, "a polling, or a mapping from endpoints to pollings")


def _gpus(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return str(value)
    if isinstance(value, str) and (value == "all" or value.isdigit() or value.startswith("device=")):
        return value
    raise expected("a number of GPUs, 'all' or 'device=ID[,device=ID]'", value)


def _quantity(value: Any) -> str:
    text = str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value
    if not isinstance(text, str) or not re.fullmatch(_QUANTITY, text):
        raise expected("a quantity of Kubernetes, such as 500m, 2 or 4Gi", value)
    return text


def _texts(value: Any) -> dict[str, str]:
    found = {}
    for name, item in _mapping(value).items():
        if isinstance(item, (list, dict)) or item is None:
            raise expected(f"a text for {name}", item)
        found[name] = str(item).lower() if isinstance(item, bool) else str(item)
    return found


def _secret_keys(value: Any) -> dict[str, str]:
    found = _environment(value)
    for name, item in found.items():
        if not re.fullmatch(_SECRET_KEY, item):
            raise expected(f"secret/key for the variable {name}, the name of a Secret and of a key in it", item)
    return found


def _share(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= 1:
        raise expected("a share (more than 0, at most 1, such as 0.7)", value)
    return float(value)


def _list_of(item: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [item, {"type": "array", "items": item}]}


_PORT_SCHEMA = {"type": "integer", "minimum": 0, "maximum": 65535}
_STRING_SCHEMA = {"type": "string"}
_ORIGIN_SCHEMA = {"type": "string", "pattern": rf"^(\*|{_ORIGIN})$"}

Text = Annotated[str, PlainValidator(_text), WithJsonSchema({"type": "string", "minLength": 1})]
Flag = Annotated[bool, PlainValidator(_flag), WithJsonSchema({"type": "boolean"})]
Mapped = Annotated[dict[str, Any], PlainValidator(_mapping), WithJsonSchema({"type": "object"})]
PositiveInteger = Annotated[
    int,
    PlainValidator(lambda value: whole_number(value, "a positive integer", 1)),
    WithJsonSchema({"type": "integer", "minimum": 1}),
]
Milliseconds = Annotated[
    int,
    PlainValidator(lambda value: whole_number(value, "milliseconds (a positive integer, or -1 for no limit)", -1)),
    WithJsonSchema({"type": "integer", "minimum": -1}),
]
Retries = Annotated[
    int,
    PlainValidator(lambda value: whole_number(value, "a number of retries (0 or more; -1 for the default)", -1)),
    WithJsonSchema({"type": "integer", "minimum": -1}),
]
Ports = Annotated[tuple[int, ...], PlainValidator(_ports), WithJsonSchema(_list_of(_PORT_SCHEMA))]
Protocols = Annotated[
    tuple[str, ...],
    PlainValidator(_protocols),
    WithJsonSchema(_list_of({"enum": [*PROTOCOL_NAMES, *(name.upper() for name in PROTOCOL_NAMES)]})),
]
Origins = Annotated[
    tuple[str, ...],
    PlainValidator(_origins),
    WithJsonSchema({"anyOf": [{"type": "boolean"}, *_list_of(_ORIGIN_SCHEMA)["anyOf"]]}),
]
Roles = Annotated[
    dict[str, str],
    PlainValidator(_roles),
    WithJsonSchema({"type": "object", "additionalProperties": {"enum": list(ROLE_NAMES)}}),
]
Hosts = Annotated[tuple[str, ...], PlainValidator(_hosts), WithJsonSchema(_list_of(_STRING_SCHEMA))]
Strings = Annotated[
    tuple[str, ...],
    PlainValidator(lambda value: _one_or_more(value, _text)),
    WithJsonSchema(_list_of(_STRING_SCHEMA)),
]
Environment = Annotated[
    dict[str, str],
    PlainValidator(_environment),
    WithJsonSchema({"type": "object", "additionalProperties": {"type": ["string", "number", "boolean"]}}),
]
Uses = Annotated[
    str | dict[str, Any],
    PlainValidator(_uses),
    WithJsonSchema({"anyOf": [{"type": "string", "minLength": 1}, {"type": "object", "required": ["jtype"]}]}),
]
Polling = Annotated[
    str | dict[str, str],
    PlainValidator(_polling),
    WithJsonSchema(
        {
            "anyOf": [
                {"enum": [*POLLING_NAMES, *(name.lower() for name in POLLING_NAMES)]},
                {"type": "object", "additionalProperties": {"enum": list(POLLING_NAMES)}},
            ]
        }
    ),
]
Gpus = Annotated[
    str,
    PlainValidator(_gpus),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string"}]}),
]
LogFormat = Annotated[
    str,
    PlainValidator(lambda value: choice(value, LOG_FORMATS, "a log format")),
    WithJsonSchema({"enum": list(LOG_FORMATS)}),
]
LogLevel = Annotated[
    str,
    PlainValidator(lambda value: choice(value, LOG_LEVELS, "a log level")),
    WithJsonSchema({"enum": [*LOG_LEVELS, *(name.lower() for name in LOG_LEVELS)]}),
]
Quantity = Annotated[
    str,
    PlainValidator(_quantity),
    WithJsonSchema({"anyOf": [{"type": "number", "minimum": 0}, {"type": "string", "pattern": f"^{_QUANTITY}$"}]}),
]
Quantities = Annotated[
    dict[str, str],
    PlainValidator(lambda value: {name: _quantity(item) for name, item in _mapping(value).items()}),
    WithJsonSchema({"type": "object", "additionalProperties": {"type": ["string", "number"]}}),
]
Texts = Annotated[
    dict[str, str],
    PlainValidator(_texts),
    WithJsonSchema({"type": "object", "additionalProperties": {"type": ["string", "number", "boolean"]}}),
]
SecretKeys = Annotated[
    dict[str, str],
    PlainValidator(_secret_keys),
    WithJsonSchema({"type": "object", "additionalProperties": {"type": "string", "pattern": f"^{_SECRET_KEY}$"}}),
]
Mappings = Annotated[
    tuple[dict[str, Any], ...],
    PlainValidator(lambda value: _one_or_more(value, _mapping)),
    WithJsonSchema(_list_of({"type": "object"})),
]
Share = Annotated[
    float, PlainValidator(_share), WithJsonSchema({"type": "number", "exclusiveMinimum": 0, "maximum": 1})
]
ServiceType = Annotated[
    str,
    PlainValidator(lambda value: choice(value, SERVICE_TYPES, "a type of service")),
    WithJsonSchema({"enum": list(SERVICE_TYPES)}),
]
