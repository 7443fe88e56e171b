"""What a forward pass is to the encoder: token sequences in, packed token vectors of the asked layers out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

from flowdex.errors import ConfigurationError, InvalidInput

if TYPE_CHECKING:
    from torch import Tensor

    from flowdex_executors.encoder.tokenising import TokenSequence

__all__ = [
    "COMPUTE_DTYPES",
    "Backend",
    "TokenVectors",
    "UsesCores",
    "choose_device",
    "on_device",
    "resolve_layers",
    "torch_dtype",
]

COMPUTE_DTYPES = ("float32", "float16", "bfloat16")


class TokenVectors(NamedTuple):
    """The vectors of all tokens of a batch, packed: no padding. On the backend's device.

    Attributes:
        layers: For each asked layer, in the order asked: float, shape (total tokens, dimensions of that layer).
        lengths: int64, shape (sequences,): sequence i has the `lengths[i]` rows after those of the sequences before it.
        attentions: For each sequence of n tokens, float of shape (layers, heads, n, n): how much of each token (last
            axis) went into each token, in every layer of attention; None where it was not asked for.
    """

    layers: tuple[Tensor, ...]
    lengths: Tensor
    attentions: tuple[Tensor, ...] | None = None


class Backend(Protocol):
    """A model in memory. `forward` may be called from several threads at the same time.

    A backend that can give attention has a further attribute, `attention_shape: tuple[int, int]`: its number of layers
    and of heads. One without it is never asked for attention.

    Attributes:
        name: For people, in `/status`.
        padded: Whether it computes on padding, so that batches should hold sequences of like length.
        dimensions: Size of a token's vector at each layer: index 0 is the input embeddings, the last one the top layer.
            A family of one layer has one entry.
    """

    name: str
    padded: bool
    dimensions: tuple[int, ...]

    def forward(
        self, sequences: Sequence[TokenSequence], layers: Sequence[int] = (-1,), *, attention: bool = False
    ) -> TokenVectors:
        """Compute the vectors of all tokens, in the order of the sequences.

        Args:
            sequences: At least one, each of at least one token.
            layers: Indices into `dimensions`, as Python's: negative ones count from the top.
            attention: Whether to give the attention too.
        """
        ...


@runtime_checkable
class UsesCores(Protocol):
    """A backend whose threads are not torch's, so that it must be told how many cores to use."""

    def use_cores(self, cores: int) -> None:
        """Use so many in the forward passes of the calling thread from now on."""
        ...


def resolve_layers(layers: Sequence[int], count: int) -> tuple[int, ...]:
    """Layer indices as numbers from 0 to `count - 1`.

    Raises:
        InvalidInput: One is out of range.
    """
    for layer in layers:
        if not -count <= layer < count:
            raise InvalidInput(
                f"layers: there is no layer {layer}; this model has {count}: 0 (the input embeddings) to {count - 1}, "
                f"or -{count} to -1, counted from the top"
                if count > 1
                else f"layers: there is no layer {layer}; this model has only one, 0 or -1"
            )
    return tuple(layer % count for layer in layers)


def torch_dtype(name: str) -> Any:
    """The torch dtype of a name from `COMPUTE_DTYPES`, in which a model computes.

    Raises:
        ConfigurationError: It is another name.
    """
    import torch

    if name not in COMPUTE_DTYPES:
        raise ConfigurationError(f"compute_dtype {name!r} is unknown; choose from {', '.join(COMPUTE_DTYPES)}")
    return getattr(torch, name)


def on_device(values: Sequence[Any], device: str) -> Tensor:
    """Whole numbers, nested or not, as a tensor on a device.

    To a GPU they go through pinned memory, so that the copy does not wait for what the GPU is computing.
    """
    import torch

    tensor = torch.tensor(values)
    return tensor if device == "cpu" else tensor.pin_memory().to(device, non_blocking=True)


def choose_device(device: str) -> str:
    """The torch device for "auto" (a GPU if there is one), "cpu", "cuda" or "cuda:N".

    Raises:
        ConfigurationError: There is no such device on this machine.
    """
    import torch

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
