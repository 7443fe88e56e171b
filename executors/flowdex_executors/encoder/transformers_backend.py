"""The forward pass of any encoder that transformers' AutoModel loads: padded, exact, the reference for the others.

ids of n sequences -> padded to the longest (n, L) with a mask -> AutoModel -> (n, L, dim) -> real tokens (T, dim)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from flowdex.errors import ConfigurationError
from flowdex_executors.encoder.backend import TokenVectors

if TYPE_CHECKING:
    from flowdex_executors.encoder.model_files import ModelFiles
    from flowdex_executors.encoder.tokenising import TokenSequence

__all__ = ["TransformersBackend"]


class TransformersBackend:
    """A transformers model in memory, in float32.

    Args:
        files: The model's folder.
        device: A torch device.

    Raises:
        ConfigurationError: transformers cannot load it, or it is an encoder-decoder.
    """

    name = "transformers"
    padded = True

    def __init__(self, files: ModelFiles, device: str = "cpu") -> None:
        import torch
        from transformers import AutoModel

        if files.config.get("is_encoder_decoder"):
            raise ConfigurationError(f"model {files.name!r} is an encoder-decoder; name an encoder")
        try:
            model = AutoModel.from_pretrained(str(files.path), local_files_only=True, dtype=torch.float32)
        except (OSError, ValueError, KeyError, ImportError) as error:
            raise ConfigurationError(
                f"transformers cannot load model {files.name!r} ({files.path}): {error}"
            ) from error
        self._model = model.to(device).eval()
        self._device = device
        self._padding = int(files.config.get("pad_token_id") or 0)

    def forward(self, sequences: Sequence[TokenSequence]) -> TokenVectors:
        """Compute the last layer's vectors of all tokens; see `Backend.forward`."""
        import torch

        with torch.inference_mode():
            lengths = torch.tensor([len(sequence) for sequence in sequences])
            longest = int(lengths.max())
            padded = [sequence.ids + [self._padding] * (longest - len(sequence)) for sequence in sequences]
            ids = torch.tensor(padded, device=self._device)
            lengths = lengths.to(self._device)
            mask = torch.arange(longest, device=self._device) < lengths.unsqueeze(1)
            hidden = self._model(input_ids=ids, attention_mask=mask.long()).last_hidden_state
            return TokenVectors(hidden[mask], lengths)
