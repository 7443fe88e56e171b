"""Which arguments an executor class takes, read from its constructors without calling them.

    class MyEncoder(Encoder): __init__(self, model, **kwargs) -> super().__init__(**kwargs)
    class Encoder(jina.Executor): __init__(self, batch=32, **kwargs) -> super().__init__(**kwargs)

    arguments(MyEncoder) = {model, batch}, complete: jina.Executor swallows what is left without a word

That last step is why a check is worth it: a misspelt argument starts without an error and does nothing.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from dataclasses import dataclass, is_dataclass
from typing import Any

__all__ = ["JINA_ARGUMENTS", "Arguments", "read_arguments"]

JINA_ARGUMENTS = frozenset({"metas", "requests", "runtime_args", "workspace", "dynamic_batching"})
"""What the host passes to every executor."""


@dataclass(frozen=True)
class Arguments:
    """What can stand under `uses_with` of a class.

    Attributes:
        names: All arguments that the class and its bases name.
        required: Those without a default.
        complete: Whether other arguments are certainly lost; False where a constructor looks into its **kwargs.
        takes_hosts: Whether the constructor takes what the host passes to every executor.
    """

    names: frozenset[str]
    required: frozenset[str]
    complete: bool
    takes_hosts: bool


def read_arguments(cls: type[Any]) -> Arguments:
    """Read the constructors of `cls` and of its bases, as far as each hands its **kwargs on."""
    names: set[str] = set()
    required: set[str] = set()
    complete, open_ended, first = True, True, True
    for base in cls.__mro__:
        constructor = base.__dict__.get("__init__")
        if base is object or not open_ended:
            break
        if constructor is None:
            continue
        if base.__module__.partition(".")[0] == "jina":
            names |= {"workspace"}
            break
        rest = ""
        for parameter in list(inspect.signature(constructor).parameters.values())[1:]:
            if parameter.kind is parameter.VAR_KEYWORD:
                rest = parameter.name
            elif parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
                if parameter.default is parameter.empty and first:
                    required.add(parameter.name)
                names.add(parameter.name)
        open_ended, first = bool(rest), False
        complete = complete and not (rest and _looks_into(constructor, rest))
    takes_hosts = open_ended or is_dataclass(cls) or names | {"workspace", "dynamic_batching"} >= JINA_ARGUMENTS
    return Arguments(frozenset(names - JINA_ARGUMENTS | {"workspace"}), frozenset(required), complete, takes_hosts)


def _looks_into(constructor: Any, rest: str) -> bool:
    """Whether `rest` (the **kwargs) is used for more than `super().__init__(**kwargs)`; True where nobody can know."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(constructor))))
    except (OSError, TypeError, SyntaxError):
        return True
    handed_on = {
        id(keyword.value)
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "__init__"
        for keyword in call.keywords
        if keyword.arg is None
    }
    return any(isinstance(node, ast.Name) and node.id == rest and id(node) not in handed_on for node in ast.walk(tree))
