"""BERT on CTranslate2, whose matrix products are fast on older processors too, and in 8 bits on all.

    weights --CTranslate2's own layout, in a temporary folder--> ctranslate2.Encoder
    ids of n sequences --> (n, L, dim) of the last layer --> real tokens (T, dim)

The weights are those of `packed_bert`, so nothing is converted beforehand and transformers has no part in it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flowdex.errors import ConfigurationError
from flowdex_executors.encoder.backend import TokenVectors, resolve_layers
from flowdex_executors.encoder.packed_bert import PackedBert, read_bert

if TYPE_CHECKING:
    from flowdex_executors.encoder.model_files import ModelFiles
    from flowdex_executors.encoder.packed_bert import BertWeights, Linear
    from flowdex_executors.encoder.tokenising import TokenSequence

__all__ = ["CTranslate2Backend"]


class CTranslate2Backend:
    """A BERT, RoBERTa, XLM-R, CamemBERT or DistilBERT on CTranslate2; of its layers, it gives the last.

    Args:
        files: The model's folder.
        device: "cpu", "cuda" or "cuda:N".
        threads: How many calls of `forward` compute at the same time, each with one thread; more wait.
        int8: Whether to compute matrix products in 8 bits.

    Attributes:
        lossy: Whether vectors differ from the model's own by more than float noise.

    Raises:
        ConfigurationError: CTranslate2 is not installed or cannot compute the model, or there is no room for temporary
            files.
    """

    padded = True

    def __init__(self, files: ModelFiles, device: str = "cpu", *, threads: int = 1, int8: bool = False) -> None:
        if not PackedBert.supports(files):
            raise ConfigurationError(
                f"the ctranslate2 backend cannot compute model {files.name!r} ({files.model_type}); "
                "use backend: transformers"
            )
        model = read_bert(files)
        self._encoder = _load(model, files.name, device, threads, "int8" if int8 else "float32")
        self._device = device
        self._on_cpu = device == "cpu"
        self._has_types = model.second_type is not None
        self.name = "ctranslate2 int8" if int8 else "ctranslate2"
        self.lossy = int8
        self.dimensions: tuple[int, ...] = (files.hidden_size,)

    def forward(
        self, sequences: Sequence[TokenSequence], layers: Sequence[int] = (-1,), *, attention: bool = False
    ) -> TokenVectors:
        """Compute the vectors of all tokens; see `Backend.forward`. It has no attention to give."""
        import torch

        count = len(resolve_layers(layers, 1))
        types = None
        if self._has_types and any(sequence.type_ids for sequence in sequences):
            types = [sequence.type_ids or [0] * len(sequence) for sequence in sequences]
        output = self._encoder.forward_batch([sequence.ids for sequence in sequences], token_type_ids=types)
        view = output.last_hidden_state  # speaks NumPy's protocol for arrays, on a GPU the one that torch reads
        hidden = torch.from_numpy(np.asarray(view)) if self._on_cpu else torch.as_tensor(view, device=self._device)
        lengths = torch.tensor([len(sequence) for sequence in sequences], device=hidden.device)
        mask = torch.arange(hidden.shape[1], device=hidden.device) < lengths.unsqueeze(1)
        return TokenVectors((hidden[mask],) * count, lengths)


def _load(model: BertWeights, name: str, device: str, threads: int, compute_type: str) -> Any:
    try:
        import ctranslate2
    except ImportError:
        raise ConfigurationError(
            "CTranslate2 is not installed: run pip install 'flowdex[ctranslate2]', or choose another backend"
        ) from None
    kind, _, index = device.partition(":")
    spec = _specification(model)
    try:
        # It loads files only; they may go as soon as it has.
        with tempfile.TemporaryDirectory(prefix="flowdex-ctranslate2-") as folder:
            spec.save(folder)
            return ctranslate2.Encoder(
                str(Path(folder)),
                device=kind,
                device_index=int(index or 0),
                compute_type=compute_type,
                inter_threads=threads,
                intra_threads=1,
            )
    except (OSError, RuntimeError, ValueError) as error:
        raise ConfigurationError(
            f"CTranslate2 cannot load model {name!r} on {device} ({error}); it needs room for temporary files "
            "(TMPDIR), as much as the weights"
        ) from None


def _specification(model: BertWeights) -> Any:
    """The model as CTranslate2 writes it; to it, weights are NumPy arrays."""
    import torch
    from ctranslate2.specs import common_spec, transformer_spec

    activation = {
        "none": common_spec.Activation.GELU,
        "tanh": common_spec.Activation.GELUTanh,
        "relu": common_spec.Activation.RELU,
    }[model.activation]
    embeddings = [model.words]
    if model.second_type is not None:  # the first type's vector is in the positions
        embeddings.append(torch.stack([torch.zeros_like(model.second_type), model.second_type]))
    encoder = transformer_spec.TransformerEncoderSpec(
        len(model.layers),
        model.heads,
        pre_norm=False,
        activation=activation,
        layernorm_embedding=True,
        num_source_embeddings=len(embeddings),
        embeddings_merge=common_spec.EmbeddingsMerge.ADD,
    )
    encoder.scale_embeddings = False
    targets = encoder.embeddings if isinstance(encoder.embeddings, list) else [encoder.embeddings]
    for target, weight in zip(targets, embeddings, strict=True):
        target.weight = weight.numpy()
    encoder.position_encodings.encodings = model.positions[model.first_position :].numpy()
    _set_norm(encoder.layernorm_embedding, model.embedding_norm)
    for target, layer in zip(encoder.layer, model.layers, strict=True):
        _set_linear(target.self_attention.linear[0], layer.qkv)
        _set_linear(target.self_attention.linear[1], layer.attention_output)
        _set_norm(target.self_attention.layer_norm, layer.attention_norm)
        _set_linear(target.ffn.linear_0, layer.inner)
        _set_linear(target.ffn.linear_1, layer.output)
        _set_norm(target.ffn.layer_norm, layer.output_norm)
    spec = transformer_spec.TransformerEncoderModelSpec(encoder)
    spec.config.layer_norm_epsilon = model.epsilon
    spec.register_vocabulary([str(token) for token in range(len(model.words))])  # sequences come as ids
    spec.validate()
    return spec


def _set_linear(target: Any, linear: Linear) -> None:
    target.weight, target.bias = linear.weight.numpy(), linear.bias.numpy()


def _set_norm(target: Any, norm: Linear) -> None:
    target.gamma, target.beta = norm.weight.numpy(), norm.bias.numpy()
