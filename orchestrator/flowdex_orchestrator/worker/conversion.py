"""Between the wire and what an endpoint is annotated with: documents and parameters in, documents out.

    DocumentBatch --documents()--> DocumentColumns | DocList[T]       parameters --parameters()--> dict | pydantic model
    DocumentBatch <---batch()----- DocumentColumns | DocList

For a columnar endpoint this costs nothing; for an ordinary one docarray makes an object of each document, which takes
some hundred microseconds each. What does not fit the annotation is the caller's fault, and the error names the document
and the field.
"""

from __future__ import annotations

from typing import Any

from flowdex.documents import DocumentBatch
from flowdex.errors import InvalidInput
from flowdex.proto import flowdex_pb2 as pb

__all__ = ["Conversion"]

_MISFITS = (ValueError, TypeError, AttributeError, KeyError)  # what docarray and pydantic raise for data they reject


class Conversion:
    """What one endpoint's annotations mean.

    Args:
        path: The endpoint, such as "/encode".
        binding: Jina's record of the method and its schemas.

    Attributes:
        is_columnar: Whether the endpoint takes `DocumentColumns`.
        response_type: What a method that returns or yields single documents is annotated to give.
    """

    def __init__(self, path: str, binding: Any) -> None:
        from docarray import DocList

        from flowdex_executors.schema import DocumentColumns

        schema = binding.request_schema
        self._path = path
        self._doc_list = DocList
        self._document_columns = DocumentColumns
        self._list_type = schema if binding.is_batch_docs else DocList[schema]
        self._parameters_model = binding.parameters_model if binding.parameters_is_pydantic_model else None
        self.is_columnar = isinstance(schema, type) and issubclass(schema, DocumentColumns)
        self.response_type = binding.response_schema

    def documents(self, batch: DocumentBatch) -> Any:
        """The documents as the endpoint wants them.

        Raises:
            InvalidInput: They do not fit the endpoint's document type.
        """
        if self.is_columnar:
            return self._list_type(batch)
        message = batch.to_proto()
        try:
            return self._list_type.from_protobuf(message)
        except _MISFITS as error:
            reason = _reason(error)
        for index, doc in enumerate(message.docs):  # only now: which one is it?
            try:
                self._list_type.from_protobuf(pb.DocListProto(docs=[doc]))
            except _MISFITS as error:
                reason = f"document {index}: {_reason(error)}"
                break
        raise InvalidInput(f"{self._path} takes documents of type {self._list_type.doc_type.__name__}: {reason}")

    def parameters(self, values: dict[str, Any]) -> Any:
        """The parameters as the endpoint wants them.

        Raises:
            InvalidInput: They do not fit its model.
        """
        if self._parameters_model is None:
            return values
        try:
            return self._parameters_model(**values)
        except _MISFITS as error:
            raise InvalidInput(f"parameters of {self._path}: {_reason(error)}") from None

    def is_documents(self, answer: Any) -> bool:
        """Whether an answer is a list of documents."""
        return isinstance(answer, self._doc_list)

    def batch(self, docs: Any) -> DocumentBatch:
        """Documents as a batch again."""
        if isinstance(docs, self._document_columns):
            return docs.batch
        return DocumentBatch.from_bytes(docs.to_protobuf().SerializeToString())

    def joined(self, docs: list[Any]) -> Any:
        """Single documents as a list of documents."""
        return self._doc_list(docs)


def _reason(error: Exception) -> str:
    """What is wrong, with the field's name where pydantic found it."""
    from pydantic import ValidationError

    if not isinstance(error, ValidationError):
        return str(error) or type(error).__name__
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    return f"field {'.'.join(map(str, first['loc']))!r}: {first['msg']}"
