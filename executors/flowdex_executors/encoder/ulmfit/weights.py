"""Reading AWD-LSTM weights that fastai has written, without running what is in the file.

    .pth          --torch.load(weights_only=True)--+
    .safetensors  ---------------------------------+--> names in any of fastai's spellings --> AwdLstmWeights

The spellings, `0.` standing for the language model's first part (it is absent in a saved encoder, and `0.module.` in a
saved classifier):

    0.encoder.weight                                          embeddings, (vocabulary, E)
    0.rnns.1.module.weight_ih_l0, .bias_ih_l0, .bias_hh_l0    of the second LSTM: (4 H, input), (4 H,), (4 H,)
    0.rnns.1.weight_hh_l0_raw         (fastai 1 and 2)        its recurrent weights, (4 H, H); `module.weight_hh_l0`,
    0.rnns.1.module.weight_hh_l0_raw  (fastai 0.7)            which may be there too, is a copy with dropout applied

Sizes and the number of layers are those of the arrays. The decoder and the classifier's head are left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowdex.errors import ConfigurationError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["AwdLstmWeights", "read_sizes", "read_weights"]

_PREFIX = r"(?:module\.|model\.)*(?:0\.)?(?:module\.)?"
_EMBEDDINGS = re.compile(_PREFIX + r"encoder\.weight")
_RECURRENT = re.compile(_PREFIX + r"rnns\.(\d+)\.(?:module\.)?((?:weight|bias)_(?:ih|hh)_l0)(_raw)?")
_QRNN = re.compile(_PREFIX + r"rnns\.\d+\.(?:module\.)?layers\.\d+\.")
_REVERSE = re.compile(_PREFIX + r"rnns\.\d+\.(?:module\.)?(?:weight|bias)_(?:ih|hh)_l0_reverse(?:_raw)?")
_PARAMETERS = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")


@dataclass(frozen=True)
class AwdLstmWeights:
    """The weights of an AWD-LSTM of E embedding dimensions and H_1 ... H_n hidden ones.

    Attributes:
        embeddings: float32, shape (vocabulary, E).
        layers: For each layer torch's parameters of an LSTM: `weight_ih_l0` (4 H, input), `weight_hh_l0` (4 H, H),
            `bias_ih_l0` and `bias_hh_l0` (4 H,), float32.
    """

    embeddings: Tensor
    layers: Sequence[Mapping[str, Tensor]]

    @property
    def sizes(self) -> tuple[int, ...]:
        """Sizes of a token's vector: E, H_1, ..., H_n."""
        return (self.embeddings.shape[1], *(layer["weight_hh_l0"].shape[1] for layer in self.layers))


def read_weights(path: Path) -> AwdLstmWeights:
    """Read and check weights.

    Raises:
        ConfigurationError: The file cannot be read, holds anything but arrays, or is not a whole AWD-LSTM; the message
            names the file and what is wrong in it.
    """
    return _checked(path, _read(path), convert=True)


def read_sizes(path: Path) -> tuple[int, ...]:
    """The sizes of a token's vector, E, H_1, ..., H_n, without reading the numbers where the format allows.

    Raises:
        ConfigurationError: As for `read_weights`.
    """
    return _checked(path, _read(path), convert=False).sizes


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ConfigurationError(f"weights: there is no file {str(path)!r}")
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return dict(load_file(path))
        except (SafetensorError, OSError, ValueError) as error:
            raise ConfigurationError(f"weights: {path} cannot be read: {error}") from None
    arrays = _read_pth(path)
    if isinstance(arrays, Mapping) and isinstance(arrays.get("model"), Mapping):
        arrays = arrays["model"]  # fastai keeps the optimiser's state beside it
    if not isinstance(arrays, Mapping):
        raise ConfigurationError(f"weights: {path} must hold a state_dict, and holds a {type(arrays).__name__}")
    return {str(name): array for name, array in arrays.items()}


def _read_pth(path: Path) -> Any:
    import pickle  # nosec B403 # the error alone
    import zipfile

    import torch

    # Only the newer format, which is a zip file, can be mapped into memory instead of being read.
    mapped = zipfile.is_zipfile(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        reason = next(iter(str(error).strip().splitlines()), "")
        raise ConfigurationError(
            f"weights: {path} holds more than arrays, and is not loaded, because such a file can run any code; where "
            "you trust it, load it elsewhere and save the arrays alone: torch.save(model.state_dict(), path), or with "
            f"safetensors ({reason})"
        ) from None
    except Exception as error:  # broken bytes make the reader fail in any way
        raise ConfigurationError(f"weights: {path} cannot be read as a .pth file: {error}") from None


def _checked(path: Path, arrays: Mapping[str, Any], *, convert: bool) -> AwdLstmWeights:
    import torch

    embeddings: tuple[str, Any] | None = None
    found: dict[int, dict[str, tuple[str, Any]]] = {}
    raw: set[tuple[int, str]] = set()
    for key, array in arrays.items():
        if _EMBEDDINGS.fullmatch(key):
            embeddings = key, array
        elif match := _RECURRENT.fullmatch(key):
            layer, parameter = int(match[1]), match[2]
            if match[3] or (layer, parameter) not in raw:
                found.setdefault(layer, {})[parameter] = key, array
            if match[3]:
                raw.add((layer, parameter))
        elif _QRNN.match(key):
            raise ConfigurationError(f"weights: {path} is a QRNN ({key}); only AWD-LSTM models can be loaded")
        elif _REVERSE.fullmatch(key):
            raise ConfigurationError(
                f"weights: {path} has a bidirectional LSTM ({key}); only models of one direction can be loaded"
            )

    def check(name: str, key: str, array: Any, shape: tuple[int | None, ...]) -> Tensor:
        if not isinstance(array, torch.Tensor) or not array.is_floating_point() or array.layout != torch.strided:
            raise ConfigurationError(f"weights: {path}: {key} is not an array of floating-point numbers")
        if array.numel() * array.element_size() > array.untyped_storage().nbytes():
            raise ConfigurationError(f"weights: {path}: {key} claims more numbers ({array.numel():,}) than it holds")
        fits = array.ndim == len(shape) and all(b in (None, a) for a, b in zip(array.shape, shape, strict=True))
        if not fits or 0 in array.shape:
            wanted = ", ".join("any" if size is None else str(size) for size in shape)
            raise ConfigurationError(
                f"weights: {path}: {key} ({name}) has the shape {tuple(array.shape)}, where ({wanted}) is needed"
            )
        return array.to(torch.float32).contiguous() if convert else array

    if embeddings is None:
        raise ConfigurationError(
            f"weights: {path} has no 0.encoder.weight: it is not an AWD-LSTM that fastai has saved"
        )
    table = check("the embeddings", *embeddings, (None, None))
    if not found:
        raise ConfigurationError(f"weights: {path} has no 0.rnns.0.module.weight_ih_l0: it has no LSTM")
    layers: list[dict[str, Tensor]] = []
    size = table.shape[1]
    for number in range(max(found) + 1):
        parameters = found.get(number, {})
        for parameter in _PARAMETERS:
            if parameter not in parameters:
                raise ConfigurationError(f"weights: {path} has no 0.rnns.{number}.module.{parameter}")
        recurrent = check("recurrent weights", *parameters["weight_hh_l0"], (None, None))
        hidden = recurrent.shape[1]
        gates = 4 * hidden
        layers.append(
            {
                "weight_ih_l0": check("input weights", *parameters["weight_ih_l0"], (gates, size)),
                "weight_hh_l0": check("recurrent weights", *parameters["weight_hh_l0"], (gates, hidden)),
                "bias_ih_l0": check("a bias", *parameters["bias_ih_l0"], (gates,)),
                "bias_hh_l0": check("a bias", *parameters["bias_hh_l0"], (gates,)),
            }
        )
        size = hidden
    return AwdLstmWeights(table, layers)
