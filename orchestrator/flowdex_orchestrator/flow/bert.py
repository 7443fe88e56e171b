"""The section `gateway: bert:` of a flow file: the flags of `bert-serving-start` that have a meaning in a flow.

    with: {protocol: [grpc, http, bert], port: [51000, 8080, 5555]}
    gateway:
      bert: {max_seq_len: 128, pooling_layer: [-1], show_tokens_to_client: true}      -> Bert

Names and defaults are those of bert-as-service 1.10, so that a command line is carried over flag by flag. What belongs
elsewhere in a flow (the model, the number of workers) is refused with its place.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, PlainValidator, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from flowdex_orchestrator.flow.section import Section
from flowdex_orchestrator.flow.values import Flag, PositiveInteger, choice, expected, whole_number

__all__ = ["ENCODER", "STRATEGIES", "Bert"]

STRATEGIES: Mapping[str, int | None] = {
    "NONE": 0,
    "REDUCE_MAX": 1,
    "REDUCE_MEAN": 2,
    "REDUCE_MEAN_MAX": 3,
    "FIRST_TOKEN": 4,  # nosec B105 # BERT's tokens
    "CLS_TOKEN": 4,  # nosec B105 # BERT's tokens
    "LAST_TOKEN": 5,  # nosec B105 # BERT's tokens
    "SEP_TOKEN": 5,  # nosec B105 # BERT's tokens
    "ENCODER": None,
}
"""Names of the strategies, with their numbers in bert-as-service's status."""
ENCODER = "ENCODER"
"""The one strategy of ours: vectors as the encoder is set up to make them."""

_LEAST_TOKENS = 3  # [CLS], one token, [SEP]
_ENCODER = "it is set at the encoder"
_ELSEWHERE = {
    "port": "`port` stands beside `protocol: bert`, in `with` or `gateway`",
    "model_dir": f"{_ENCODER}: uses_with: {{model: FOLDER}}",
    "tuned_model_dir": f"{_ENCODER}: uses_with: {{model: FOLDER}}",
    "ckpt_name": f"{_ENCODER}: uses_with: {{model: FOLDER}}, a folder in the format of transformers",
    "config_name": f"{_ENCODER}: uses_with: {{model: FOLDER}}, a folder in the format of transformers",
    "num_worker": f"{_ENCODER}: replicas: N",
    "cpu": f"{_ENCODER}: uses_with: {{device: cpu}}",
    "device_map": f"{_ENCODER}: env: {{CUDA_VISIBLE_DEVICES: RR}}",
    "gpu_memory_fraction": "a GPU's memory is taken as needed; leave it out",
    "fp16": f"{_ENCODER}: uses_with: {{compute_dtype: float16}}",
    "xla": f"{_ENCODER}: uses_with: {{backend: ...}} chooses the forward pass",
    "cased_tokenization": "the model's own tokenizer decides; leave it out",
    "do_lower_case": "the model's own tokenizer decides; leave it out",
    "priority_batch_size": "the encoder puts small requests first by itself; leave it out",
    "no_special_token": "the encoder adds the special tokens that the model was trained with; leave it out",  # nosec B105 # BERT's tokens
    "no_position_embeddings": "the encoder computes the model as it was trained; leave it out",
    "http_port": "name `http` under `protocol`, with its port",
    "http_max_connect": "uses_with: {max_in_flight: N} of the gateway limits requests",
    "cors": "it is a key of the gateway: cors: true",
    "verbose": "it is a key of the gateway: log_level: DEBUG",
    "graph_tmp_dir": "there is no graph to write; leave it out",
}


def _length(value: Any) -> int | None:
    if isinstance(value, str) and value.upper() == "NONE":
        return None
    return whole_number(value, f"a number of tokens (at least {_LEAST_TOKENS}) or NONE", _LEAST_TOKENS)


def _layers(value: Any) -> tuple[int, ...]:
    items = value if isinstance(value, (list, tuple)) else [value]
    if not items:
        raise expected("one layer or several", value)
    return tuple(whole_number(item, "a layer (-1 is the top, 0 the first one)", -1000, 1000) for item in items)


Port = Annotated[
    int,
    PlainValidator(lambda value: whole_number(value, "a port (0 to 65535; 0 takes any free one)", 0, 65535)),
    WithJsonSchema({"type": "integer", "minimum": 0, "maximum": 65535}),
]
SequenceLength = Annotated[
    int | None,
    PlainValidator(_length),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": _LEAST_TOKENS}, {"enum": ["NONE", "none"]}]}),
]
Layers = Annotated[
    tuple[int, ...],
    PlainValidator(_layers),
    WithJsonSchema({"anyOf": [{"type": "integer"}, {"type": "array", "items": {"type": "integer"}, "minItems": 1}]}),
]
Strategy = Annotated[
    str,
    PlainValidator(lambda value: choice(value, tuple(STRATEGIES), "a pooling strategy")),
    WithJsonSchema({"enum": [*STRATEGIES, *(name.lower() for name in STRATEGIES)]}),
]


class Bert(Section):
    """What clients of bert-as-service get: the flags of bert-serving-start that have a meaning in a flow."""

    port_out: Port | None = Field(
        default=None, description="Port that replies are published on; the one after `port` where not given."
    )
    max_seq_len: SequenceLength = Field(
        default=25, description="Longest sequence in tokens; longer texts are cut. NONE: the encoder's own limit."
    )
    pooling_layer: Layers = Field(
        default=(-2,), description="Layers to pool, joined; -1 is the top, 0 the first above the embeddings."
    )
    pooling_strategy: Strategy = Field(
        default="REDUCE_MEAN",
        description="How token vectors become one. ENCODER: as the encoder is set up, its layers and length included.",
    )
    show_tokens_to_client: Flag = Field(default=False, description="Send the tokens too, for show_tokens=True.")
    mask_cls_sep: Flag = Field(
        default=False, description="Leave [CLS] and [SEP] out of the pooling; with strategy NONE their rows are zeros."
    )
    fixed_embed_length: Flag = Field(
        default=False, description="With strategy NONE: matrices of max_seq_len rows, not of the longest text's."
    )
    max_batch_size: PositiveInteger = Field(default=256, description="Most texts in a request to the encoder.")
    prefetch_size: PositiveInteger = Field(
        default=10, description="Requests to the encoder at the same time, for one request of a client."
    )

    without_key: Flag = Field(
        default=False, description="Serve it although the gateway has keys; its clients cannot send one."
    )

    @classmethod
    def unknown_key(cls, key: str) -> str:
        """As for every section, and where a flag of bert-serving-start belongs."""
        return _ELSEWHERE.get(key) or super().unknown_key(key)

    @model_validator(mode="after")
    def _consistent(self) -> Bert:
        if self.fixed_embed_length and self.max_seq_len is None:
            text = "fixed_embed_length needs a max_seq_len other than NONE"
            raise PydanticCustomError("expected", "{text}", {"text": text})
        return self
