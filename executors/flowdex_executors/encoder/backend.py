"""What a forward pass is to the encoder: token sequences in, packed token vectors out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from flowdex_executors.encoder.tokenising import TokenSequence

__all__ = ["Backend", "TokenVectors", "choose_device"]


class TokenVectors(NamedTuple):
    """The vectors of all tokens of a batch, packed: no padding.

    Attributes:
        values: float32, shape (total tokens, dim), on the backend's device.
        lengths: int64, shape (sequences,): sequence i has the `lengths[i]` rows after those of the sequences before it.
    """

    values: Tensor
    lengths: Tensor


class Backend(Protocol):
    """A model in memory. `forward` may be called from several threads at the same time.

    Attributes:
        name: For people, in `/status`.
        padded: Whether it computes on padding, so that batches should hold sequences of like length.
    """

    name: str
    padded: bool

    def forward(self, sequences: Sequence[TokenSequence]) -> TokenVectors:
        """Compute the vectors of all tokens, in the order of the sequences."""
        ...


def choose_device(device: str) -> str:
    """The torch device for "auto" (a GPU if there is one), "cpu", "cuda" or "cuda:N".

    Raises:
        ConfigurationError: There is no such device on this machine.
    """
    import torch

    from flowdex.errors import ConfigurationError

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        wanted = torch.device(device)
    except RuntimeError:
        raise ConfigurationError(f"device {device!r} is unknown; use auto, cpu or cuda:N") from None
    if wanted.type == "cuda" and (wanted.index or 0) >= torch.cuda.device_count():
        raise ConfigurationError(
            f"device {device!r} is not on this machine, which has {torch.cuda.device_count()} GPUs that torch can use; "
            "use auto or cpu"
        )
    return str(wanted)
