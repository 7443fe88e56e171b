"""Variables in the values of a flow file: `${{ ENV.X }}`, `${{ CONTEXT.x }}` (or `${{ x }}`), `$VAR` and `${VAR}`.

    'text with ${{ ENV.X }}' --(env, context)--> str
    '${{ ENV.N }}' alone     --(env, context)--> what YAML reads in the variable's text: 2, true, [grpc, http], ...

Jina's rules, with two differences: a variable that is not defined is an error (Jina leaves the text as it stands), and
`$$` writes one dollar. Values are substituted once: what a variable holds is never searched for further variables.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from flowdex_orchestrator.flow.findings import nearest

__all__ = ["SubstitutionError", "environment_names", "is_one_variable", "substitute"]

_PATTERN = re.compile(
    r"""
    \$\$                                        # an escaped dollar
    | \$\{\{ (?P<expression> .*? ) \}\}         # ${{ ENV.X }}, ${{ CONTEXT.x }}, ${{ x }}
    | \$\{ (?P<braced> [^{}]* ) \}              # ${VAR}
    | \$ (?P<plain> [A-Za-z_][A-Za-z0-9_]* )    # $VAR
    """,
    re.VERBOSE | re.DOTALL,
)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_REFERENCE_ROOTS = ("root", "this")


class SubstitutionError(ValueError):
    """A variable that is not defined, or an expression that is none."""


def substitute(
    text: str,
    env: Mapping[str, str],
    context: Mapping[str, Any],
    resolve: Callable[[str], Any] = str,
) -> Any:
    """Replace the variables of one scalar.

    Args:
        text: The scalar's text.
        env: The environment variables.
        context: The values of `${{ CONTEXT.x }}`.
        resolve: Gives the type to the text of a variable that is the whole scalar, as YAML would.

    Returns:
        A string, or, where the whole scalar is one variable, whatever `resolve` makes of its text. A context value that
        is not a string comes back as it is.

    Raises:
        SubstitutionError: A variable is not defined or an expression is malformed; the message names it.
    """
    if "$" not in text:
        return text
    whole = _PATTERN.fullmatch(text.strip())
    if whole and whole[0] != "$$":
        value = _lookup(whole, env, context)
        return resolve(value) if isinstance(value, str) else value
    return _PATTERN.sub(lambda match: str(_lookup(match, env, context)), text)


def environment_names(text: str) -> Iterator[str]:
    """The environment variables that a scalar names, in its order."""
    for match in _PATTERN.finditer(text):
        expression = match["expression"]
        if match[0] == "$$":
            continue
        if expression is None:
            yield match["braced"] if match["plain"] is None else match["plain"]
            continue
        scope, _, name = expression.strip().partition(".")
        if scope in ("ENV", "env"):
            yield name


def is_one_variable(text: str) -> bool:
    """Whether a scalar is one variable and nothing else."""
    whole = _PATTERN.fullmatch(text.strip())
    return whole is not None and whole[0] != "$$"


def _lookup(match: re.Match[str], env: Mapping[str, str], context: Mapping[str, Any]) -> Any:
    if match[0] == "$$":
        return "$"
    expression = match["expression"]
    if expression is None:
        name = match["braced"] if match["plain"] is None else match["plain"]
        return _variable("environment variable", name, match[0], env)
    scope, dot, name = expression.strip().partition(".")
    if scope in _REFERENCE_ROOTS and (dot or "[" in scope):
        raise SubstitutionError(
            f"{match[0]!r} refers to another key of the file; write the value, or use a YAML anchor (&name, *name)"
        )
    if not dot:
        return _variable("context variable", scope, match[0], context)
    if scope in ("ENV", "env"):
        return _variable("environment variable", name, match[0], env)
    if scope in ("CONTEXT", "context"):
        return _variable("context variable", name, match[0], context)
    raise SubstitutionError(f"{match[0]!r} is no variable; write ${{{{ ENV.NAME }}}} or ${{{{ CONTEXT.name }}}}")


def _variable(kind: str, name: str, source: str, values: Mapping[str, Any]) -> Any:
    if not _NAME.fullmatch(name):
        raise SubstitutionError(f"{source!r} is no variable; write ${{{{ ENV.NAME }}}} (a literal dollar is $$)")
    if name not in values:
        remedy = "set it" if kind.startswith("env") else "pass it"
        raise SubstitutionError(
            f"the {kind} {name!r} is not defined{nearest(name, values)}; {remedy}, or write $$ for a dollar"
        )
    return values[name]
