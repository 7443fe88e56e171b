"""What Jina's and clip-as-service's clients ask at `/` to see where a request's time goes.

    Client.profiling(), profile()  --> "/", an empty document --as_encode--> "/encode", one short text --> routes

They read nothing but the routes of the reply. A stock gateway skips every executor that does not bind `/`, and so they
would print the time of doing nothing, or divide by it; here the flow encodes a text, which is what its users wait for.
"""

from __future__ import annotations

from flowdex.documents import DocumentBatch
from flowdex.proto import flowdex_pb2 as pb
from flowdex.wire import documents_of, read_request, serialize_data
from flowdex_orchestrator.gateway.frame import Frame, split

__all__ = ["ENCODE", "PROFILE", "as_encode"]

PROFILE = "/"
ENCODE = "/encode"
_TEXT = "how long does one request take?"


def as_encode(frame: Frame) -> Frame:
    """The request as one to `/encode`: the same documents, with a short text in those that have none.

    Raises:
        InvalidInput: The request cannot be read.
    """
    request = read_request(frame.join())
    documents = documents_of(request)
    if not documents:
        documents = DocumentBatch.from_columns(texts=[_TEXT])
    documents.texts = [text if text and not text.isspace() else _TEXT for text in documents.texts]
    head = pb.DataRequestProtoWoData(header=request.header, parameters=request.parameters)
    head.header.exec_endpoint = ENCODE
    return split(head.SerializeToString() + serialize_data(documents))
