"""Relations: what must hold between values of one answer, or of several. One function each; its name is that in a file.

{"descending": ["results[*].relevance_score"]} --look-up of the arguments--> descending(scores) --> None | Broken

Vectors count as equal where their directions and lengths are to a thousandth: servers may compute in half precision.
"""

from __future__ import annotations

import base64
import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from flowdex.conformance.model import shown
from flowdex.errors import ConfigurationError

__all__ = ["RELATIONS", "Broken", "check_relation", "holds"]

_TOLERANCE = 1e-3
Vectors = npt.NDArray[np.float64]


class Broken(NamedTuple):
    """A relation that does not hold."""

    expected: str
    got: str


Relation = Callable[..., Broken | None]


def check_relation(name: str, arguments: Any, where: str) -> None:
    """Find the mistakes of a relation in a file.

    Raises:
        ConfigurationError: It has one.
    """
    if name not in RELATIONS:
        raise ConfigurationError(f"{where}: there is no relation {name!r}; there are {', '.join(sorted(RELATIONS))}")
    wanted = list(inspect.signature(RELATIONS[name]).parameters)
    if not isinstance(arguments, list) or len(arguments) != len(wanted):
        raise ConfigurationError(f"{where}: {name} takes a list of {len(wanted)}: {', '.join(wanted)}")


def holds(name: str, arguments: Sequence[Any]) -> Broken | None:
    """Whether a relation holds; what was expected and what is, where it does not."""
    try:
        with np.errstate(all="ignore"):  # a server may answer any number
            return RELATIONS[name](*arguments)
    except (TypeError, ValueError, LookupError, OverflowError) as error:
        return Broken(f"values of which {name!r} can be told", f"{shown(list(arguments))} ({error})")


def equal(first: Any, second: Any) -> Broken | None:
    """The two are the same JSON."""
    return None if first == second else Broken(shown(second), shown(first))


def unit_length(vectors: Any) -> Broken | None:
    """Each vector has length 1."""
    lengths = np.linalg.norm(_matrix(vectors), axis=1)
    worst = float(lengths[np.argmax(np.abs(lengths - 1))])
    return None if abs(worst - 1) <= _TOLERANCE else Broken("vectors of length 1", f"one of length {worst:.4f}")


def same_size(vectors: Any) -> Broken | None:
    """All vectors have as many numbers."""
    sizes = sorted({len(vector) for vector in vectors})
    return None if len(sizes) == 1 else Broken("vectors of one size", f"sizes {sizes}")


def same_counts(first: Any, second: Any) -> Broken | None:
    """The lists in the first list are, one by one, as long as those in the second."""
    return equal([len(each) for each in first], [len(each) for each in second])


def same_vectors(first: Any, second: Any) -> Broken | None:
    """The vectors of the first list are, one by one, those of the second."""
    left, right = _matrix(first), _matrix(second)
    if left.shape != right.shape:
        return Broken(f"vectors of shape {right.shape}", f"of shape {left.shape}")
    apart = np.linalg.norm(left - right, axis=1) / np.maximum(np.linalg.norm(right, axis=1), 1e-12)
    # Vectors whose cosine is 1 - c are sqrt(2c) apart.
    worst = int(np.argmax(apart))
    if apart[worst] <= np.sqrt(2 * _TOLERANCE):
        return None
    return Broken("the same vectors", f"vector {worst} differs by {apart[worst]:.3f} of its length")


def different_vectors(vectors: Any) -> Broken | None:
    """No two of them are the same."""
    matrix = _matrix(vectors)
    for index in range(1, len(matrix)):
        apart = np.linalg.norm(matrix[:index] - matrix[index], axis=1).min()
        if apart <= _TOLERANCE * max(float(np.linalg.norm(matrix[index])), 1e-12):
            return Broken("a vector of its own for each text", f"vector {index} equals one before it")
    return None


def same_direction(first: Any, second: Any) -> Broken | None:
    """The vectors of the first list are, one by one, those of the second, but for their lengths."""
    left, right = _matrix(first), _matrix(second)
    return same_vectors(_normalised(left), _normalised(right))


def base64_of(encoded: Any, vectors: Any) -> Broken | None:
    """Each string is base64 of the little-endian float32 numbers of its vector."""
    expected = _matrix(vectors)
    found = [np.frombuffer(base64.b64decode(text, validate=True), "<f4") for text in encoded]
    sizes = [len(vector) for vector in found]
    if sizes != [expected.shape[1]] * len(expected):
        return Broken(f"{len(expected)} x {expected.shape[1]} float32 numbers", f"sizes {shown(sizes)}")
    return same_vectors(np.stack(found), expected)


def cosines(scores: Any, source: Any, vectors: Any) -> Broken | None:
    """The scores are the cosines of the source vector with the vectors."""
    found = np.asarray(scores, dtype=np.float64)
    expected = _normalised(_matrix(vectors)) @ _normalised(_matrix([source]))[0]
    if found.shape == expected.shape and np.allclose(found, expected, atol=1e-2):
        return None
    return Broken(f"the cosines {shown([round(each, 3) for each in expected.tolist()])}", shown(scores))


def descending(scores: Any) -> Broken | None:
    """No score is larger than the one before it."""
    ordered = sorted(scores, reverse=True)
    return None if list(scores) == ordered else Broken("the best first", shown(scores))


def permutation(indices: Any, count: int) -> Broken | None:
    """Each of the whole numbers from 0 to below `count`, once."""
    if len(indices) == count and sorted(indices) == list(range(count)):
        return None
    return Broken(f"each index from 0 to {count - 1} once", shown(indices))


def texts_at(texts: Any, indices: Any, source: Any) -> Broken | None:
    """The texts are those that the indices mean in the source."""
    return equal(list(texts), [source[index] for index in indices])


def spans_of(tokens: Any, text: str) -> Broken | None:
    """The tokens that are not special lie in the text one after the other: `start`, `stop` in characters."""
    end = 0
    for token in tokens:
        if token["special"]:
            continue
        start, stop = token["start"], token["stop"]
        if not (isinstance(start, int) and isinstance(stop, int) and end <= start < stop <= len(text)):
            return Broken(f"places in a text of {len(text)} characters, in order", shown(token))
        end = stop
    return None if end else Broken("tokens with their places", shown(tokens))


def _matrix(vectors: Any) -> Vectors:
    matrix = np.asarray(vectors, dtype=np.float64)
    if matrix.ndim != 2 or not matrix.size:
        raise ValueError(f"no list of vectors of one size, but of shape {matrix.shape}")
    if not np.isfinite(matrix).all():
        raise ValueError("a number is not finite")
    return matrix


def _normalised(matrix: Vectors) -> Vectors:
    return np.asarray(matrix / np.maximum(np.linalg.norm(matrix, axis=1, keepdims=True), 1e-12))


RELATIONS: dict[str, Relation] = {
    each.__name__: each
    for each in (
        base64_of,
        cosines,
        descending,
        different_vectors,
        equal,
        permutation,
        same_counts,
        same_direction,
        same_size,
        same_vectors,
        spans_of,
        texts_at,
        unit_length,
    )
}
