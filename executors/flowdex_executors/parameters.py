"""Check a request's parameters: a pydantic model in, `InvalidInput` out.

    parameters of the request (JSON; numbers are doubles) --parse_parameters(Model, ...)--> Model

Keys that the model does not know are ignored, because they may belong to another executor of the flow.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from flowdex.errors import InvalidInput

__all__ = ["parse_parameters", "remember"]

Model = TypeVar("Model", bound=BaseModel)
K = TypeVar("K")
V = TypeVar("V")

_MOST_KEPT = 64


def parse_parameters(model: type[Model], parameters: Mapping[str, Any] | None) -> Model:
    """Validate parameters; one that is null counts as not given.

    Raises:
        InvalidInput: Naming every wrong parameter and what was expected.
    """
    given = {key: value for key, value in (parameters or {}).items() if value is not None}
    try:
        return model.model_validate({key: value for key, value in given.items() if key in model.model_fields})
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(step) for step in problem['loc'])}: {problem['msg']}, got {problem['input']!r:.60}"
            for problem in error.errors()
        )
        raise InvalidInput(f"wrong parameters: {problems}") from None


def remember(kept: dict[K, V], key: K, value: V) -> None:
    """Keep what was made of a request's parameters, for the next request with the same.

    Callers choose the parameters, so there is a limit: past it all are made anew.
    """
    if len(kept) >= _MOST_KEPT:
        kept.clear()
    kept[key] = value
