"""The fields of a document (title, body, ...) on the wire: a dictionary, and beside it the order of its keys.

    {"title": ..., "body": ...} --write_fields--> fields: {...}, field_order: ["title", "body"] --read_fields--> {...}

A document's text is its fields in their order with a blank line between, so the order must travel; a dictionary on the
wire (a protobuf map) has none. Fields that come without an order are taken in that of their names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from flowdex.documents import DocumentBatch
from flowdex.errors import InvalidInput

__all__ = ["FIELDS", "FIELD_ORDER", "joined", "read_fields", "write_fields"]

FIELDS, FIELD_ORDER = "fields", "field_order"
SEPARATOR = "\n\n"


def joined(fields: Mapping[str, str]) -> str:
    """The text of a document with these fields: what the locations of its passages count in."""
    return SEPARATOR.join(fields.values())


def write_fields(batch: DocumentBatch, values: Sequence[Mapping[str, str] | None]) -> None:
    """Write the fields of every document; None for one that has none.

    Raises:
        InvalidInput: There are not as many as documents, or a value cannot be sent.
    """
    batch.set_column(FIELDS, [None if each is None else dict(each) for each in values])
    batch.set_column(FIELD_ORDER, [list(each) if each and len(each) > 1 else None for each in values])


def read_fields(batch: DocumentBatch) -> list[dict[str, str] | None]:
    """Read the fields of every document, each in its order; None where it has none.

    Raises:
        InvalidInput: They are not texts by names.
    """
    return [
        None if fields is None else _ordered(fields, order, index)
        for index, (fields, order) in enumerate(zip(batch.column(FIELDS), batch.column(FIELD_ORDER), strict=True))
    ]


def _ordered(fields: object, order: object, index: int) -> dict[str, str]:
    if not isinstance(fields, dict) or not all(isinstance(text, str) for text in fields.values()):
        raise InvalidInput(
            f"document {index}: field 'fields' must hold texts by their names, such as a title and a body"
        )
    named = order if isinstance(order, (list, tuple)) else ()
    names = [name for name in named if isinstance(name, str) and name in fields]
    names += sorted(set(fields) - set(names))
    return {name: fields[name] for name in names}
