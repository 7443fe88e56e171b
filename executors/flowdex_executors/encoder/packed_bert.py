"""BERT's forward pass without padding, read straight from a safetensors file.

    ids of all sequences in one row (T,) -> embeddings (T, dim) -> [attention, feed-forward] x layers -> (T, dim)

All that works on single tokens (embeddings, linear layers, layer norms) runs once over the packed row; attention, the
one step in which tokens meet, runs for each group of sequences of equal length. So no token is computed in vain, and a
vector does not depend on what else is in the batch beyond the rounding of a matrix product. The mathematics is that of
Devlin et al., 2019; RoBERTa differs in where positions start, DistilBERT in having no token types, and each in the
names of its weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from flowdex.errors import ConfigurationError
from flowdex_executors.encoder.backend import TokenVectors, on_device, resolve_layers, torch_dtype

if TYPE_CHECKING:
    from torch import Tensor

    from flowdex_executors.encoder.model_files import ModelFiles
    from flowdex_executors.encoder.tokenising import TokenSequence

__all__ = ["BertWeights", "Layer", "Linear", "PackedBert", "read_bert"]

WEIGHTS = "model.safetensors"

# transformers' names of the activations, and how torch computes them.
_ACTIVATIONS = {"gelu": "none", "gelu_new": "tanh", "gelu_pytorch_tanh": "tanh", "relu": "relu"}


@dataclass(frozen=True)
class _Names:
    """What a family calls its weights; `{}` stands for the number of the layer."""

    prefix: str
    layer: str
    query: str
    key: str
    value: str
    attention_output: str
    attention_norm: str
    inner: str
    output: str
    output_norm: str


_BERT = _Names(
    prefix="bert.",
    layer="encoder.layer.{}.",
    query="attention.self.query",
    key="attention.self.key",
    value="attention.self.value",
    attention_output="attention.output.dense",
    attention_norm="attention.output.LayerNorm",
    inner="intermediate.dense",
    output="output.dense",
    output_norm="output.LayerNorm",
)
_ROBERTA = _Names(**{**_BERT.__dict__, "prefix": "roberta."})
_DISTILBERT = _Names(
    prefix="distilbert.",
    layer="transformer.layer.{}.",
    query="attention.q_lin",
    key="attention.k_lin",
    value="attention.v_lin",
    attention_output="attention.out_lin",
    attention_norm="sa_layer_norm",
    inner="ffn.lin1",
    output="ffn.lin2",
    output_norm="output_layer_norm",
)
_FAMILIES = {
    "bert": _BERT,
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "camembert": _ROBERTA,
    "distilbert": _DISTILBERT,
}


class Linear(NamedTuple):
    """x W^T + b; or the scale and the shift of a layer norm."""

    weight: Tensor
    bias: Tensor


class Layer(NamedTuple):
    """One layer; its norms come after the additions."""

    qkv: Linear
    attention_output: Linear
    attention_norm: Linear
    inner: Linear
    output: Linear
    output_norm: Linear


class BertWeights(NamedTuple):
    """A model of the family, whatever it calls its weights.

    Attributes:
        words: Embeddings of the vocabulary, (vocabulary, dim).
        positions: Embeddings of the positions, the first token type's added, (positions, dim).
        second_type: What a token of the second text of a pair has more than one of the first, (dim,), if anything.
        embedding_norm: The layer norm of the embeddings.
        layers: The layers, bottom first.
        heads: Attention heads of a layer.
        epsilon: What layer norms add to the variance.
        activation: "none" for the exact GELU, "tanh" for its approximation, "relu".
        first_position: The position of the first token.
    """

    words: Tensor
    positions: Tensor
    second_type: Tensor | None
    embedding_norm: Linear
    layers: list[Layer]
    heads: int
    epsilon: float
    activation: str
    first_position: int


class PackedBert:
    """BERT, RoBERTa, XLM-R, CamemBERT or DistilBERT in memory.

    Args:
        files: The model's folder; `supports` must hold.
        device: A torch device.
        compute_dtype: Name of the number type to compute in.

    Raises:
        ConfigurationError: A weight that the configuration promises is not in the file.
    """

    name = "packed"
    padded = False

    def __init__(self, files: ModelFiles, device: str = "cpu", compute_dtype: str = "float32") -> None:
        self._device = device
        self.weights = read_bert(files, device, compute_dtype)
        self.dimensions = (files.hidden_size,) * (len(self.weights.layers) + 1)
        self.attention_shape = (len(self.weights.layers), self.weights.heads)

    @staticmethod
    def supports(files: ModelFiles) -> bool:
        """Whether this forward pass computes that model exactly."""
        config = files.config
        return (
            files.model_type in _FAMILIES
            and (files.path / WEIGHTS).is_file()
            and _activation_name(config) in _ACTIVATIONS
            and config.get("position_embedding_type", "absolute") == "absolute"
            and not config.get("is_decoder", False)
            and "quantization_config" not in config
        )

    def forward(
        self, sequences: Sequence[TokenSequence], layers: Sequence[int] = (-1,), *, attention: bool = False
    ) -> TokenVectors:
        """Compute the vectors of all tokens; see `Backend.forward`. Layers above the highest asked one cost nothing."""
        import torch
        from torch.nn import functional

        wanted = resolve_layers(layers, len(self.dimensions))
        depth = len(self.weights.layers) if attention else max(wanted)
        with torch.inference_mode():
            lengths = [len(sequence) for sequence in sequences]
            hidden = self._embed(sequences, lengths)
            groups = _groups(lengths)
            outputs = {0: hidden}
            weights: list[list[Tensor]] | None = [] if attention else None
            for number, layer in enumerate(self.weights.layers[:depth], start=1):
                attended = functional.linear(self._attend(hidden, layer.qkv, groups, weights), *layer.attention_output)
                hidden = self._norm(hidden + attended, layer.attention_norm)
                inner = self._activate(functional.linear(hidden, *layer.inner))
                hidden = self._norm(hidden + functional.linear(inner, *layer.output), layer.output_norm)
                if number in wanted:
                    outputs[number] = hidden
            return TokenVectors(
                tuple(outputs[number] for number in wanted),
                on_device(lengths, self._device),
                None if weights is None else _by_sequence(weights),
            )

    def _embed(self, sequences: Sequence[TokenSequence], lengths: Sequence[int]) -> Tensor:
        """The input embeddings: (T, dim)."""
        from torch.nn import functional

        ids = on_device([token for sequence in sequences for token in sequence.ids], self._device)
        first = self.weights.first_position
        positions = on_device([position for n in lengths for position in range(first, first + n)], self._device)
        hidden = functional.embedding(ids, self.weights.words) + functional.embedding(positions, self.weights.positions)
        if self.weights.second_type is not None and any(sequence.type_ids for sequence in sequences):
            types = [kind for sequence in sequences for kind in sequence.type_ids or [0] * len(sequence)]
            hidden = hidden + on_device(types, self._device).unsqueeze(1) * self.weights.second_type
        return self._norm(hidden, self.weights.embedding_norm)

    def _attend(
        self, hidden: Tensor, qkv: Linear, groups: list[tuple[int, int, int]], weights: list[list[Tensor]] | None
    ) -> Tensor:
        """Self-attention of each sequence on itself: (T, dim) -> (T, dim).

        Args:
            hidden: The layer's input.
            qkv: The three projections.
            groups: Runs of sequences of equal length.
            weights: Where to append the layer's attention, one (heads, n, n) for each sequence; None for nowhere.
        """
        import torch
        from torch.nn import functional

        projected = functional.linear(hidden, *qkv).view(len(hidden), 3, self.weights.heads, -1)
        context = hidden.new_empty(len(hidden), self.weights.heads, projected.shape[-1])
        kept: list[Tensor] = []
        for start, count, length in groups:
            rows = slice(start, start + count * length)
            # (count * length, 3, heads, size) -> three of (count, heads, length, size)
            split = projected[rows].view(count, length, 3, self.weights.heads, -1)
            query, key, value = split.permute(2, 0, 3, 1, 4).unbind(0)
            if weights is None:
                attended = functional.scaled_dot_product_attention(query, key, value)
            else:  # the same by hand, because the fused operation keeps the weights to itself
                scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
                shares = torch.softmax(scores, dim=-1)
                kept.extend(shares)
                attended = shares @ value
            context[rows].view(count, length, self.weights.heads, -1).copy_(attended.transpose(1, 2))
        if weights is not None:
            weights.append(kept)
        return context.flatten(1)

    def _norm(self, values: Tensor, norm: Linear) -> Tensor:
        from torch.nn import functional

        return functional.layer_norm(values, (values.shape[-1],), norm.weight, norm.bias, self.weights.epsilon)

    def _activate(self, values: Tensor) -> Tensor:
        from torch.nn import functional

        if self.weights.activation == "relu":
            return functional.relu(values)
        return functional.gelu(values, approximate=self.weights.activation)


def read_bert(files: ModelFiles, device: str = "cpu", dtype: str = "float32") -> BertWeights:
    """Read the weights of a model for which `PackedBert.supports` holds, as numbers of that type.

    Raises:
        ConfigurationError: A weight that the configuration promises is not in the file.
    """
    config = files.config
    names = _FAMILIES[files.model_type]
    weights = _Weights(files.path / WEIGHTS, names.prefix, device, torch_dtype(dtype))
    positions = weights["embeddings.position_embeddings.weight"]
    second_type: Tensor | None = None
    if names is not _DISTILBERT:  # a text by itself is of type 0 throughout, so its vector can be added once, here
        types = weights["embeddings.token_type_embeddings.weight"]
        positions = positions + types[0]
        if len(types) > 1:
            second_type = types[1] - types[0]
    count = int(config.get("num_hidden_layers") or config["n_layers"])
    return BertWeights(
        words=weights["embeddings.word_embeddings.weight"],
        positions=positions,
        second_type=second_type,
        embedding_norm=weights.linear("embeddings.LayerNorm"),
        layers=[_read_layer(weights, names, number) for number in range(count)],
        heads=int(config.get("num_attention_heads") or config["n_heads"]),
        epsilon=float(config.get("layer_norm_eps", 1e-12)),
        activation=_ACTIVATIONS[_activation_name(config)],
        # RoBERTa counts positions from the padding id on.
        first_position=int(config.get("pad_token_id", 1)) + 1 if names is _ROBERTA else 0,
    )


class _Weights(Mapping[str, "Tensor"]):
    """The tensors of a safetensors file as one dtype on a device; on the CPU float32 stays mapped, not copied.

    Weights are found with or without the family's prefix, which depends on the class that saved them.
    """

    def __init__(self, path: Path, prefix: str, device: str, dtype: Any) -> None:
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            self._tensors: dict[str, Tensor] = load_file(path, device=device)
        except (SafetensorError, OSError) as error:
            raise ConfigurationError(f"{path} cannot be read: {error}; download the model again") from None
        self._path = path
        self._prefix = prefix
        self._dtype = dtype

    def __getitem__(self, name: str) -> Tensor:
        for candidate in (name, self._prefix + name, *_older_names(name), *_older_names(self._prefix + name)):
            if candidate in self._tensors:
                return self._tensors[candidate].to(self._dtype)
        raise ConfigurationError(f"{self._path} has no weight {name!r}: it is not what the folder's config.json says")

    def __iter__(self) -> Any:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def linear(self, name: str) -> Linear:
        return Linear(self[f"{name}.weight"], self[f"{name}.bias"])


def _older_names(name: str) -> list[str]:
    """TensorFlow's names of a layer norm's weights, which the first BERT files kept."""
    if "LayerNorm" not in name:
        return []
    return [name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")]


def _read_layer(weights: _Weights, names: _Names, number: int) -> Layer:
    import torch

    prefix = names.layer.format(number)
    projections = [weights.linear(prefix + part) for part in (names.query, names.key, names.value)]
    return Layer(
        # One product instead of three.
        qkv=Linear(torch.cat([part.weight for part in projections]), torch.cat([part.bias for part in projections])),
        attention_output=weights.linear(prefix + names.attention_output),
        attention_norm=weights.linear(prefix + names.attention_norm),
        inner=weights.linear(prefix + names.inner),
        output=weights.linear(prefix + names.output),
        output_norm=weights.linear(prefix + names.output_norm),
    )


def _groups(lengths: Sequence[int]) -> list[tuple[int, int, int]]:
    """Runs of neighbours of equal length, as (first row, number of sequences, length)."""
    groups = []
    start = 0
    for length, run in groupby(lengths):
        count = sum(1 for _ in run)
        groups.append((start, count, length))
        start += count * length
    return groups


def _by_sequence(weights: list[list[Tensor]]) -> tuple[Tensor, ...]:
    """Attention of each layer and sequence, (heads, n, n), to that of each sequence, (layers, heads, n, n)."""
    import torch

    return tuple(torch.stack(layers) for layers in zip(*weights, strict=True))


def _activation_name(config: Mapping[str, Any]) -> str:
    return str(config.get("hidden_act") or config.get("activation") or "")
