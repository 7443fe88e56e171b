"""The answer of a replica, looked at before anybody goes on with it.

    bytes --read_answer--> Answer(frame, data, status) | InvalidInput: it is no answer to what was asked

A replica whose memory or whose version is not what it should be may answer anything. That must end in a call of another
replica, and not in a wrong answer or in an error further on.
"""

from __future__ import annotations

from typing import NamedTuple

from flowdex.errors import InvalidInput
from flowdex.proto import flowdex_pb2 as pb
from flowdex.wire import ERROR
from flowdex_orchestrator.gateway.frame import Frame, split
from flowdex_orchestrator.gateway.splitting import count_documents

__all__ = ["Answer", "read_answer"]


class Answer(NamedTuple):
    """A reply that is one.

    Attributes:
        frame: Its fields.
        data: The serialised whole.
        status: Of its header; it may carry an error of the executor.
    """

    frame: Frame
    data: bytes
    status: pb.StatusProto

    @property
    def is_error(self) -> bool:
        """Whether it carries an error."""
        return bool(self.status.code == ERROR)


def read_answer(data: bytes, documents: int | None = None, endpoint: str | None = None) -> Answer:
    """Cut a reply into its fields.

    Args:
        data: The bytes that came.
        documents: How many documents an answer without an error has; None for any number.
        endpoint: What was asked, which an answer repeats; None for anything.

    Raises:
        InvalidInput: It is no `DataRequestProto`, is of another endpoint, or has another number of documents.
    """
    frame = split(data)
    if not frame.header:
        raise InvalidInput("a reply without a header")
    header = frame.header_only().header
    if endpoint is not None and header.exec_endpoint != endpoint:
        raise InvalidInput(f"an answer of {header.exec_endpoint!r} to {endpoint!r}")
    answer = Answer(frame, data, header.status)
    if documents is not None and not answer.is_error:
        found = count_documents(frame.data, documents + 1)
        if found != documents:
            raise InvalidInput(f"{'more' if found > documents else found} documents in answer to {documents}")
    return answer
