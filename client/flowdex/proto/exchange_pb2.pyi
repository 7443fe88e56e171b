from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ExchangeMetadataProto(_message.Message):
    __slots__ = ("key", "value")
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    key: str
    value: bytes
    def __init__(self, key: _Optional[str] = ..., value: _Optional[bytes] = ...) -> None: ...

class ExchangeRequestProto(_message.Message):
    __slots__ = ("number", "request", "timeout", "metadata")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    number: int
    request: bytes
    timeout: float
    metadata: _containers.RepeatedCompositeFieldContainer[ExchangeMetadataProto]
    def __init__(self, number: _Optional[int] = ..., request: _Optional[bytes] = ..., timeout: _Optional[float] = ..., metadata: _Optional[_Iterable[_Union[ExchangeMetadataProto, _Mapping]]] = ...) -> None: ...

class ExchangeRequestsProto(_message.Message):
    __slots__ = ("requests",)
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    requests: _containers.RepeatedCompositeFieldContainer[ExchangeRequestProto]
    def __init__(self, requests: _Optional[_Iterable[_Union[ExchangeRequestProto, _Mapping]]] = ...) -> None: ...

class ExchangeReplyProto(_message.Message):
    __slots__ = ("number", "reply", "code", "details")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    REPLY_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    DETAILS_FIELD_NUMBER: _ClassVar[int]
    number: int
    reply: bytes
    code: int
    details: str
    def __init__(self, number: _Optional[int] = ..., reply: _Optional[bytes] = ..., code: _Optional[int] = ..., details: _Optional[str] = ...) -> None: ...

class ExchangeRepliesProto(_message.Message):
    __slots__ = ("replies",)
    REPLIES_FIELD_NUMBER: _ClassVar[int]
    replies: _containers.RepeatedCompositeFieldContainer[ExchangeReplyProto]
    def __init__(self, replies: _Optional[_Iterable[_Union[ExchangeReplyProto, _Mapping]]] = ...) -> None: ...
