"""What the routes of text-embeddings-inference take and answer, as pydantic models."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from flowdex_orchestrator.gateway.http.compat.contract import ContractRequest, Inputs
from flowdex_orchestrator.gateway.http.models.base import Text

__all__ = [
    "DecodeRequest",
    "EmbedAllRequest",
    "EmbedRequest",
    "EmbedSparseRequest",
    "Info",
    "SimilarityRequest",
    "SimpleToken",
    "SparseValue",
    "TeiError",
    "TeiRank",
    "TeiRerankRequest",
    "TokenizeRequest",
]

ErrorType = Literal["Unhealthy", "Backend", "Overloaded", "Validation", "Tokenizer", "Empty"]


def _texts(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _direction(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


Direction = Annotated[Literal["left", "right"], BeforeValidator(_direction)]


class Choices(ContractRequest):
    """What requests about texts may choose."""

    model: str | None = Field(default=None, description="Name of an encoder of the flow, or of its model.")
    truncate: bool | None = Field(
        default=None, description="Whether a text that is too long is cut, or refused; as the encoder is set up."
    )
    truncation_direction: Direction = Field(default="right", description="Which side of it is cut off.")
    prompt_name: str | None = Field(default=None, description="Name of the prompt before each text.")

    def parameters(self) -> dict[str, Any]:
        """As the encoder has them; None for what it decides."""
        cut = "tail" if self.truncation_direction == "left" else "head"
        truncation = None if self.truncate is None else cut if self.truncate else "error"
        return {"truncation": truncation, "prompt": self.prompt_name}


class EmbedRequest(Choices):
    """Texts to turn into vectors."""

    inputs: Inputs
    normalize: bool = True
    dimensions: int | None = Field(default=None, ge=1, description="So many leading dimensions.")


class EmbedAllRequest(Choices):
    """Texts whose tokens are to become vectors."""

    inputs: Inputs


class EmbedSparseRequest(ContractRequest):
    """Texts that are to become sparse vectors."""

    inputs: Annotated[list[Text], BeforeValidator(_texts, json_schema_input_type=str | list[str])]


class SimilarityInputs(ContractRequest):
    """One sentence, and those to compare it with."""

    source_sentence: Text
    sentences: list[Text]


class SimilarityRequest(ContractRequest):
    """Sentences to compare."""

    inputs: SimilarityInputs
    parameters: Choices = Choices()
    model: str | None = None


class TeiRerankRequest(ContractRequest):
    """Texts to order."""

    query: Text
    texts: list[Text]
    raw_scores: bool = Field(default=False, description="Whether a cross-encoder's scores are its logits.")
    return_text: bool = False
    truncate: bool | None = Field(default=None, description="Texts that are too long are always cut.")
    model: str | None = Field(default=None, description="Name of a ranker, of its cross-encoder, or of a method.")


class TokenizeRequest(ContractRequest):
    """Texts to tokenize."""

    inputs: Annotated[list[Text], BeforeValidator(_texts, json_schema_input_type=str | list[str])]
    add_special_tokens: bool = True
    prompt_name: str | None = None
    model: str | None = None


def _ids(value: Any) -> Any:
    one = isinstance(value, list) and bool(value) and all(type(each) is int for each in value)
    sequences = [value] if one else value
    if not isinstance(sequences, list) or not all(
        isinstance(ids, list) and ids and all(type(each) is int and 0 <= each < 2**31 for each in ids)
        for ids in sequences
    ):
        raise PydanticCustomError("token_ids", "must be a list of token ids, or a list of such lists")
    return sequences


class DecodeRequest(ContractRequest):
    """Token ids to make texts of."""

    ids: Annotated[
        list[list[int]],
        BeforeValidator(_ids, json_schema_input_type=list[int] | list[list[int]]),
    ]
    skip_special_tokens: bool = True
    model: str | None = None


class TeiRank(BaseModel):
    """A text's place."""

    index: int
    score: float
    text: str | None = None


class SparseValue(BaseModel):
    """One dimension of a sparse vector."""

    index: int
    value: float


class SimpleToken(BaseModel):
    """A token of a text; `start` and `stop` are in characters, and null for special tokens."""

    id: int | None = Field(description="Null where the model's tokens are words or characters.")
    text: str
    special: bool
    start: int | None
    stop: int | None


class Info(BaseModel):
    """The model, and the limits."""

    model_config = ConfigDict(protected_namespaces=())

    model_id: str
    model_sha: str | None
    model_dtype: str
    model_type: dict[str, Any]
    max_concurrent_requests: int
    max_input_length: int | None
    max_batch_tokens: int | None
    max_batch_requests: int | None
    max_client_batch_size: int
    auto_truncate: bool
    tokenization_workers: int | None
    version: str
    sha: str | None
    docker_label: str | None


class TeiError(BaseModel):
    """An error."""

    error: str
    error_type: ErrorType
