"""The filter language of /search and /delete, compiled to Qdrant's.

    {"lang": "en", "year": {"$gte": 2020}, "$not": {"draft": true}}  -->  qdrant_client.models.Filter

A filter is a JSON object. All its entries must hold:

    "path": value                       the tag equals value; null: the tag is missing, null or empty
    "path": {"$eq" | "$ne": value}
    "path": {"$in" | "$nin": [values]}
    "path": {"$gt" | "$gte" | "$lt" | "$lte": number or ISO 8601 date}
    "path": {"$exists": true | false}
    "$and" | "$or": [filters], "$not": filter

Dates are compared as moments; without a time zone they are UTC. A tag should hold either numbers or dates: a list of
both is never found by a range of dates.

A path is a tag's name; dots lead into nested objects, `name[]` into the elements of a list of objects. `id` is the
document's id. A tag that holds a list matches when one of its elements does. Numbers equal each other whether they are
written 1 or 1.0; strings, numbers and booleans never equal each other.
"""

from __future__ import annotations

import difflib
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any, TypeAlias

from qdrant_client import models

from flowdex.errors import InvalidInput
from flowdex_executors.indexer.limits import IndexLimits
from flowdex_executors.indexer.payload import FLAGS, flag, payload_key

__all__ = ["compile_filter"]

Condition: TypeAlias = (
    models.FieldCondition | models.IsEmptyCondition | models.Filter | models.HasIdCondition | models.IsNullCondition
)

_DEFAULTS = IndexLimits()

_RANGES = {"$gt": "gt", "$gte": "gte", "$lt": "lt", "$lte": "lte"}
_FIELD_OPERATORS = ("$eq", "$ne", "$in", "$nin", *_RANGES, "$exists")
_LOGICAL_OPERATORS = ("$and", "$or", "$not")


def compile_filter(value: Any, limits: IndexLimits = _DEFAULTS) -> models.Filter | None:
    """Compile a filter; None and {} compile to None, which matches everything.

    Raises:
        InvalidInput: It is not a filter; the message names the place and, for an operator, the nearest known one.
    """
    if value is None or value == {}:
        return None
    conditions: list[Any] = list(_object(value, "filter", limits, 1))
    if (size := _size(conditions)) > limits.filter_conditions:
        raise InvalidInput(
            f"the filter has {size} conditions; {limits.remedy('filter_conditions')}; use $in for lists of values"
        )
    return models.Filter(must=conditions)


def _size(conditions: Sequence[Any]) -> int:
    return sum(
        1 + sum(_size(clause) for clause in (item.must, item.should, item.must_not) if isinstance(clause, list))
        if isinstance(item, models.Filter)
        else 1
        for item in conditions
    )


def _object(value: Any, place: str, limits: IndexLimits, depth: int) -> Iterator[Condition]:
    if not isinstance(value, Mapping):
        raise InvalidInput(f'{place}: expected an object such as {{"lang": "en"}}, got {_show(value)}')
    if depth > limits.filter_depth:
        raise InvalidInput(f"{place}: the filter is nested deeper: of levels, {limits.remedy('filter_depth')}")
    for key, operand in value.items():
        here = f"{place}.{key}"
        if key in ("$and", "$or"):
            if not isinstance(operand, Sequence) or isinstance(operand, str) or not operand:
                raise InvalidInput(f"{here}: expected a list of filters, got {_show(operand)}")
            parts: list[Any] = [
                models.Filter(must=list(_object(item, f"{here}[{index}]", limits, depth + 1)))
                for index, item in enumerate(operand)
            ]
            yield models.Filter(must=parts) if key == "$and" else models.Filter(should=parts)
        elif key == "$not":
            yield _negate(models.Filter(must=list(_object(operand, here, limits, depth + 1))))
        elif key.startswith("$"):
            raise InvalidInput(f"{place}: {_unknown(key, _LOGICAL_OPERATORS, _FIELD_OPERATORS)}")
        else:
            yield from _field(key, operand, here, limits)


def _field(path: str, operand: Any, place: str, limits: IndexLimits) -> Iterator[Condition]:
    if not isinstance(operand, Mapping):
        yield _equals(path, operand, place, limits)
        return
    bounds: dict[str, Any] = {}
    if not operand:
        raise InvalidInput(f"{place}: expected a value or an operator ({', '.join(_FIELD_OPERATORS)}), got {{}}")
    for operator, argument in operand.items():
        here = f"{place}.{operator}"
        if operator in _RANGES:
            bounds[operator] = argument
        elif operator == "$eq":
            yield _equals(path, argument, here, limits)
        elif operator == "$ne":
            yield _negate(_equals(path, argument, here, limits))
        elif operator == "$in":
            yield _any_of(path, argument, here, limits)
        elif operator == "$nin":
            yield _negate(_any_of(path, argument, here, limits))
        elif operator == "$exists":
            if not isinstance(argument, bool):
                raise InvalidInput(f"{here}: expected true or false, got {_show(argument)}")
            yield _negate(_empty(path, here)) if argument else _empty(path, here)
        else:
            raise InvalidInput(f"{place}: {_unknown(operator, _FIELD_OPERATORS, _LOGICAL_OPERATORS)}")
    if bounds:
        yield _range(path, bounds, place)


# ---- conditions ----


def _negate(condition: Condition) -> models.Filter:
    return models.Filter(must_not=[condition])


def _empty(path: str, place: str) -> models.IsEmptyCondition:
    return models.IsEmptyCondition(is_empty=models.PayloadField(key=_key(path, place)))


def _equals(path: str, value: Any, place: str, limits: IndexLimits) -> Condition:
    if value is None:
        return _empty(path, place)
    return _any_of(path, [value], place, limits)


def _any_of(path: str, values: Any, place: str, limits: IndexLimits) -> Condition:
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise InvalidInput(f"{place}: expected a list of values, got {_show(values)}")
    if not values:
        raise InvalidInput(f"{place}: expected one value or more, got none")
    if len(values) > limits.filter_values:
        raise InvalidInput(f"{place}: {len(values)} values are too many; {limits.remedy('filter_values')}")
    key = _key(path, place)
    words: list[str] = []
    conditions: list[Any] = []
    for value in values:
        if isinstance(value, bool):
            conditions.append(_match(FLAGS, [flag(path, value)]))
        elif isinstance(value, str):
            words.append(value)
        elif isinstance(value, (int, float)) and math.isfinite(value):
            number = float(value)
            conditions.append(models.FieldCondition(key=key, range=models.Range(gte=number, lte=number)))
        else:
            raise InvalidInput(f"{place}: expected a string, number or boolean, got {_show(value)}")
    if words:
        conditions.append(_match(key, words))
    return conditions[0] if len(conditions) == 1 else models.Filter(should=conditions)


def _match(key: str, words: list[str]) -> models.FieldCondition:
    if len(words) == 1:
        return models.FieldCondition(key=key, match=models.MatchValue(value=words[0]))
    return models.FieldCondition(key=key, match=models.MatchAny(any=words))


def _range(path: str, bounds: Mapping[str, Any], place: str) -> Condition:
    key = _key(path, place)
    numbers: dict[str, float] = {}
    dates: dict[str, datetime] = {}
    for operator, value in bounds.items():
        name = _RANGES[operator]
        if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
            numbers[name] = float(value)
        elif isinstance(value, str):
            dates[name] = _date(value, f"{place}.{operator}")
        else:
            raise InvalidInput(f"{place}.{operator}: expected a number or an ISO 8601 date, got {_show(value)}")
    if numbers and dates:
        raise InvalidInput(f"{place}: a range is either of numbers or of dates")
    if numbers:
        return models.FieldCondition(key=key, range=models.Range(**numbers))
    # The engine's index of numbers takes a date for microseconds since 1970, and would find numbers by it.
    numeric = models.FieldCondition(key=key, range=models.Range(gte=-sys.float_info.max))
    return models.Filter(must=[models.FieldCondition(key=key, range=models.DatetimeRange(**dates))], must_not=[numeric])


def _date(text: str, place: str) -> datetime:
    try:
        # Python 3.10 does not read the suffix Z.
        moment = datetime.fromisoformat(text[:-1] + "+00:00" if text.endswith(("Z", "z")) else text)
    except ValueError:
        raise InvalidInput(
            f'{place}: expected a number or an ISO 8601 date such as "2024-05-31", got {_show(text)}'
        ) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)


# ---- paths and messages ----


def _key(path: str, place: str) -> str:
    key = payload_key(path)
    if key is None:
        raise InvalidInput(
            f"{place}: {path!r} is not a path; write names joined by dots, and name[] for the elements of a list"
        )
    return key


def _unknown(operator: str, known: Sequence[str], elsewhere: Sequence[str]) -> str:
    if operator in elsewhere:
        where = "an object of filters" if operator in _LOGICAL_OPERATORS else 'a field, as in {"year": {"$gt": 2020}}'
        return f"the operator {operator} belongs into {where}"
    nearest = difflib.get_close_matches(operator, known, n=1, cutoff=0.5)
    hint = f", did you mean {nearest[0]}?" if nearest else ";"
    return f"unknown operator {operator!r}{hint} Known here: {', '.join(known)}"


def _show(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
