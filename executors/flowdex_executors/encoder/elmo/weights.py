"""Reading the published files of a bidirectional language model: `options.json` and `weights.hdf5`.

    options.json --read_options--> ElmoOptions --+
                                                 +--read_weights--> ElmoWeights (checked arrays, gates in our order)
    weights.hdf5 --------------------------------+

The names and shapes are those that the authors' `dump_weights` writes. HDF5 holds arrays and nothing that runs. Every
array is checked against the options, so that a wrong pair of files is refused by the name of what does not fit.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from flowdex.errors import ConfigurationError
from flowdex_executors.encoder.elmo.characters import CHARACTERS

if TYPE_CHECKING:
    import h5py

__all__ = ["CellWeights", "ElmoOptions", "ElmoWeights", "HighwayWeights", "read_options", "read_weights"]

Array = npt.NDArray[np.float32]

_ACTIVATIONS = ("relu", "tanh")
_LARGE = 16 * 2**20  # bytes of an array; no trained one of that size is packed to a twentieth
_PACKED = 20
_LEAST_WIDTH = 3  # ids of a word: its start, a character, its end


@dataclass(frozen=True)
class ElmoOptions:
    """What `options.json` says.

    Attributes:
        layers: Layers of LSTMs.
        projection: Size of a token in each direction, P.
        cell: Size of an LSTM's memory, C.
        cell_clip: Largest magnitude of the memory; None for no limit.
        projection_clip: Largest magnitude of a projected state; None for no limit.
        residual: Whether layers after the first add their input to their output.
        character_dimensions: Size of a character's embedding, E.
        characters_per_word: Character ids of a word, W.
        filters: Width and number of each convolution's filters.
        highways: Highway layers.
        activation: "relu" or "tanh", of the convolutions.
    """

    layers: int
    projection: int
    cell: int
    cell_clip: float | None
    projection_clip: float | None
    residual: bool
    character_dimensions: int
    characters_per_word: int
    filters: tuple[tuple[int, int], ...]
    highways: int
    activation: str

    @property
    def features(self) -> int:
        """How many filters there are in all, F."""
        return sum(count for _, count in self.filters)


class HighwayWeights(NamedTuple):
    """carry: (F, F) and (F,); transform: (F, F) and (F,). Inputs are multiplied from the left."""

    carry: Array
    carry_bias: Array
    transform: Array
    transform_bias: Array


class CellWeights(NamedTuple):
    """One LSTM of one direction, gates in the order input, forget, output, candidate.

    Attributes:
        inputs: (P, 4 C).
        state: (P, 4 C).
        bias: (4 C,), with the 1 that the original adds to the forget gate.
        projection: (C, P).
    """

    inputs: Array
    state: Array
    bias: Array
    projection: Array


@dataclass(frozen=True)
class ElmoWeights:
    """The arrays of a model, float32; sizes by the letters of `ElmoOptions`.

    Attributes:
        characters: (261, E).
        convolutions: For each width: filters (count, E, width) and bias (count,).
        highways: Highway layers, first to last.
        projection: (F, P) and (P,); None where a token is the F features themselves.
        cells: For each layer, the LSTM that reads forwards and the one that reads backwards.
    """

    characters: Array
    convolutions: tuple[tuple[Array, Array], ...]
    highways: tuple[HighwayWeights, ...]
    projection: tuple[Array, Array] | None
    cells: tuple[tuple[CellWeights, CellWeights], ...]


def read_options(path: Path) -> ElmoOptions:
    """Read `options.json`.

    Raises:
        ConfigurationError: It cannot be read, or a key is missing or has a value that no model has.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigurationError(f"options: there is no file {str(path)!r}; name the model's options.json") from None
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"options: {path} cannot be read as JSON: {error}") from None
    values = _Options(path, content)
    words = values.optional("char_cnn", "n_characters", CHARACTERS)
    if words not in (CHARACTERS, CHARACTERS + 1):  # 262 in files for inference: one more for AllenNLP's mask
        raise values.error("char_cnn.n_characters", f"must be {CHARACTERS} or {CHARACTERS + 1}, got {words!r}")
    activation = values.optional("char_cnn", "activation", "relu")
    if activation not in _ACTIVATIONS:
        raise values.error("char_cnn.activation", f"must be one of {', '.join(_ACTIVATIONS)}, got {activation!r}")
    embedding = values.required("char_cnn", "embedding")
    dimensions = embedding.get("dim") if isinstance(embedding, Mapping) else None
    return ElmoOptions(
        layers=values.count("lstm", "n_layers"),
        projection=values.count("lstm", "projection_dim"),
        cell=values.count("lstm", "dim"),
        cell_clip=values.limit("lstm", "cell_clip"),
        projection_clip=values.limit("lstm", "proj_clip"),
        residual=bool(values.optional("lstm", "use_skip_connections", False)),
        character_dimensions=values.whole("char_cnn.embedding.dim", dimensions),
        characters_per_word=values.count("char_cnn", "max_characters_per_token", least=_LEAST_WIDTH),
        filters=values.filters(),
        highways=values.whole("char_cnn.n_highway", values.optional("char_cnn", "n_highway", 0) or 0, least=0),
        activation=activation,
    )


class _Options:
    """Typed access to the two sections of the file, with errors that name the key."""

    def __init__(self, path: Path, content: Any) -> None:
        self._path = path
        self._sections: dict[str, Mapping[str, Any]] = {}
        for name in ("lstm", "char_cnn"):
            section = content.get(name) if isinstance(content, Mapping) else None
            if not isinstance(section, Mapping):
                raise self.error(name, "is missing: this is not the options file of an ELMo model with a character CNN")
            self._sections[name] = section

    def error(self, key: str, problem: str) -> ConfigurationError:
        return ConfigurationError(f"options: {key} {problem} ({self._path})")

    def required(self, section: str, key: str) -> Any:
        if self._sections[section].get(key) is None:
            raise self.error(f"{section}.{key}", "is missing")
        return self._sections[section][key]

    def optional(self, section: str, key: str, default: Any) -> Any:
        return self._sections[section].get(key, default)

    def count(self, section: str, key: str, least: int = 1) -> int:
        return self.whole(f"{section}.{key}", self.required(section, key), least)

    def whole(self, name: str, value: Any, least: int = 1) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise self.error(name, f"must be a whole number of at least {least}, got {value!r}")
        return value

    def limit(self, section: str, key: str) -> float | None:
        value = self.optional(section, key, None)
        if not value:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0:
            raise self.error(f"{section}.{key}", f"must be a positive number, or null for no limit, got {value!r}")
        return float(value)

    def filters(self) -> tuple[tuple[int, int], ...]:
        value = self.required("char_cnn", "filters")
        if not isinstance(value, list) or not value:
            raise self.error("char_cnn.filters", f"must be a list of [width, count], got {value!r}")
        width = self.count("char_cnn", "max_characters_per_token", least=_LEAST_WIDTH)
        found = []
        for number, pair in enumerate(value):
            name = f"char_cnn.filters[{number}]"
            if not isinstance(pair, list) or len(pair) != 2:
                raise self.error(name, f"must be [width, count], got {pair!r}")
            found.append((self.whole(name, pair[0]), self.whole(name, pair[1])))
            if pair[0] > width:
                raise self.error(name, f"is wider than the {width} characters of a word")
        return tuple(found)


def read_weights(path: Path, options: ElmoOptions) -> ElmoWeights:
    """Read `weights.hdf5`.

    Raises:
        ConfigurationError: It is not an HDF5 file, an array is missing, or one is not of the shape or the kind that the
            options ask for.
    """
    try:
        import h5py
    except ImportError:
        raise ConfigurationError("ELMo's weights are HDF5: run pip install 'flowdex[elmo]'") from None
    if not path.is_file():
        raise ConfigurationError(f"weights: there is no file {str(path)!r}; name the model's weights.hdf5")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise ConfigurationError(f"weights: {path} cannot be read as HDF5: {error}") from None
    with file:
        return _read(_Arrays(path, file), options)


class _Arrays:
    """Typed access to the arrays of the file, with errors that name the key."""

    def __init__(self, path: Path, file: h5py.File) -> None:
        self._path = path
        self._file = file

    def __contains__(self, key: str) -> bool:
        return key in self._file

    def __call__(self, key: str, *shape: int) -> Array:
        import h5py

        found = self._file.get(key)
        if not isinstance(found, h5py.Dataset):
            raise ConfigurationError(
                f"weights: {self._path} has no array {key!r}; it is not of this model or is cut off"
            )
        if found.shape != shape or found.dtype.kind != "f":
            raise ConfigurationError(
                f"weights: {key!r} should hold floats of shape {shape} by the options, but holds {found.dtype} of "
                f"shape {found.shape} ({self._path}); options and weights must be of one model"
            )
        if found.file.filename != self._file.filename or found.external or found.is_virtual:
            raise ConfigurationError(f"weights: {key!r} of {self._path} lies in another file, which is not read")
        if found.nbytes > _LARGE and found.nbytes > _PACKED * found.id.get_storage_size():
            raise ConfigurationError(
                f"weights: {key!r} of {self._path} claims {found.nbytes:,} bytes, and the file holds "
                f"{found.id.get_storage_size():,} for it; it is not complete, or no file of weights"
            )
        try:
            array: Array = np.asarray(found[...], dtype=np.float32)
        except OSError as error:
            raise ConfigurationError(f"weights: {key!r} of {self._path} cannot be read: {error}") from None
        if not np.isfinite(array).all():
            raise ConfigurationError(f"weights: {key!r} of {self._path} holds numbers that are not finite")
        return array


def _read(arrays: _Arrays, options: ElmoOptions) -> ElmoWeights:
    features, size = options.features, options.projection
    convolutions = []
    for number, (width, count) in enumerate(options.filters):
        kernel = arrays(f"CNN/W_cnn_{number}", 1, width, options.character_dimensions, count)
        convolutions.append((kernel[0].transpose(2, 1, 0).copy(), arrays(f"CNN/b_cnn_{number}", count)))
    projection = None
    if features != size or "CNN_proj" in arrays:  # the original leaves it out where sizes are equal
        projection = (arrays("CNN_proj/W_proj", features, size), arrays("CNN_proj/b_proj", size))
    return ElmoWeights(
        characters=arrays("char_embed", CHARACTERS, options.character_dimensions),
        convolutions=tuple(convolutions),
        highways=tuple(_read_highway(arrays, f"CNN_high_{number}", features) for number in range(options.highways)),
        projection=projection,
        cells=tuple(
            (_read_cell(arrays, options, 0, layer), _read_cell(arrays, options, 1, layer))
            for layer in range(options.layers)
        ),
    )


def _read_highway(arrays: _Arrays, name: str, size: int) -> HighwayWeights:
    return HighwayWeights(
        carry=arrays(f"{name}/W_carry", size, size),
        carry_bias=arrays(f"{name}/b_carry", size),
        transform=arrays(f"{name}/W_transform", size, size),
        transform_bias=arrays(f"{name}/b_transform", size),
    )


def _read_cell(arrays: _Arrays, options: ElmoOptions, direction: int, layer: int) -> CellWeights:
    name = f"RNN_{direction}/RNN/MultiRNNCell/Cell{layer}/LSTMCell"
    size, cell = options.projection, options.cell
    both = arrays(f"{name}/W_0", 2 * size, 4 * cell)  # the input's rows, then the state's
    bias = arrays(f"{name}/B", 4 * cell)
    bias[2 * cell : 3 * cell] += 1  # TensorFlow adds it at run time
    return CellWeights(
        inputs=_reorder(both[:size], cell),
        state=_reorder(both[size:], cell),
        bias=_reorder(bias, cell),
        projection=arrays(f"{name}/W_P_0", cell, size),
    )


def _reorder(gates: Array, cell: int) -> Array:
    """TensorFlow's input, candidate, forget, output to input, forget, output, candidate: three sigmoids in a row."""
    order = np.concatenate([np.arange(start * cell, (start + 1) * cell) for start in (0, 2, 3, 1)])
    return np.ascontiguousarray(gates[..., order])
