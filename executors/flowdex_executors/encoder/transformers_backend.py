"""The forward pass of any encoder that transformers' AutoModel loads: padded, exact, the reference for the others.

ids of n sequences -> padded to the longest (n, L) with a mask -> AutoModel -> (n, L, dim) -> real tokens (T, dim)
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from flowdex.errors import ConfigurationError
from flowdex_executors.encoder.backend import TokenVectors, on_device, resolve_layers, torch_dtype
from flowdex_executors.encoder.pretrained import load_pretrained

if TYPE_CHECKING:
    from flowdex_executors.encoder.model_files import ModelFiles
    from flowdex_executors.encoder.tokenising import TokenSequence

__all__ = ["TransformersBackend"]


class TransformersBackend:
    """A transformers model in memory.

    Args:
        files: The model's folder.
        device: A torch device.
        compute_dtype: Name of the number type to compute in.

    Raises:
        ConfigurationError: transformers cannot load it, weights are missing, or it is an encoder-decoder.
    """

    name = "transformers"
    padded = True

    def __init__(self, files: ModelFiles, device: str = "cpu", compute_dtype: str = "float32") -> None:
        from transformers import AutoModel

        dtype = torch_dtype(compute_dtype)
        if files.config.get("is_encoder_decoder"):
            raise ConfigurationError(f"model {files.name!r} is an encoder-decoder; name an encoder")
        model, loading = load_pretrained(AutoModel, files, dtype=dtype)
        missing = sorted(name for name in loading["missing_keys"] if "pooler" not in name)  # which is not used
        if missing:  # transformers would go on with random numbers
            raise ConfigurationError(
                f"the weights of model {files.name!r} ({files.path}) lack {missing[0]} and {len(missing) - 1} others; "
                "name a whole model, whose config.json belongs to its weights"
            )
        model.config.use_cache = False  # decoders would keep keys and values for a next token that never comes
        self._model = model.to(device).eval()
        self._device = device
        self._padding = max(int(files.config.get("pad_token_id") or 0), 0)  # some decoders say -1 for none
        self._has_types = int(files.config.get("type_vocab_size") or 0) > 1
        layers = int(model.config.num_hidden_layers)
        self.dimensions = (files.hidden_size,) * (layers + 1)
        self.attention_shape = (layers, int(model.config.num_attention_heads))

    def forward(
        self, sequences: Sequence[TokenSequence], layers: Sequence[int] = (-1,), *, attention: bool = False
    ) -> TokenVectors:
        """Compute the vectors of all tokens; see `Backend.forward`."""
        import torch

        wanted = resolve_layers(layers, len(self.dimensions))
        top = len(self.dimensions) - 1
        with torch.inference_mode():
            sizes = [len(sequence) for sequence in sequences]
            longest = max(sizes)
            lengths = on_device(sizes, self._device)
            mask = torch.arange(longest, device=self._device) < lengths.unsqueeze(1)
            inputs: dict[str, Any] = {
                "input_ids": self._padded([sequence.ids for sequence in sequences], longest, self._padding),
                "attention_mask": mask.long(),
                "output_hidden_states": any(layer != top for layer in wanted),
            }
            if self._has_types and any(sequence.type_ids for sequence in sequences):
                types = [sequence.type_ids or [0] * len(sequence) for sequence in sequences]
                inputs["token_type_ids"] = self._padded(types, longest, 0)
            model = self._eager_model if attention else self._model
            output = model(**inputs, output_attentions=attention)
            return TokenVectors(
                # The last of the hidden states is not the output where a model has a norm at its end.
                tuple(
                    (output.last_hidden_state if layer == top else output.hidden_states[layer])[mask]
                    for layer in wanted
                ),
                lengths,
                tuple(
                    torch.stack([layer[row, :, :size, :size] for layer in output.attentions])
                    for row, size in enumerate(sizes)
                )
                if attention
                else None,
            )

    @cached_property
    def _eager_model(self) -> Any:
        """The same weights in a model that computes attention step by step, because the fused one does not tell it."""
        shared = {id(tensor): tensor for tensor in (*self._model.parameters(), *self._model.buffers())}
        model = copy.deepcopy(self._model, shared)
        model.set_attn_implementation("eager")
        return model

    def _padded(self, rows: Sequence[list[int]], longest: int, padding: int) -> Any:
        return on_device([row + [padding] * (longest - len(row)) for row in rows], self._device)
