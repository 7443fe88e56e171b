"""Models of one's own: a Python function, an ONNX file or a TorchScript file in the encoder's place.

    texts --------------------------> function ------------------------------> vectors     CallableEncoder
    texts --tokenizer.json--> ids --> file --> token vectors --pooling--> vectors          OnnxEncoder
                                           `-> vectors                                     TorchScriptEncoder

A file is data: neither format runs code other than its own operators, and nothing here unpickles.
"""

import importlib
import importlib.util
import inspect
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from flowdex.errors import ConfigurationError, InvalidInput
from flowdex_executors.encoder.backend import choose_device
from flowdex_executors.encoder.base import Encoder, check_options
from flowdex_executors.encoder.fingerprint import digest_files
from flowdex_executors.encoder.model_files import ModelFiles
from flowdex_executors.encoder.options import EncodeParameters
from flowdex_executors.encoder.output import Vectors
from flowdex_executors.encoder.padded_model import OnnxModel, PaddedModel, TorchScriptModel
from flowdex_executors.encoder.token_encoder import TokenEncoder
from flowdex_executors.encoder.tokenising import TextTokenizer

# No `from __future__ import annotations` here: see flowdex_executors.schema.

__all__ = ["CallableEncoder", "OnnxEncoder", "TorchScriptEncoder"]

_PROBE = ("a", "a text to find out what the function gives")
_DEFAULT_TOKENS = 512
_ABSURD_LENGTH = 1_000_000  # tokenizers without a limit of their own write 10^30 into their configuration


class CallableEncoder(Encoder):
    """Encodes texts with a Python function: list of n strings -> array of numbers, (n, D).

    A text's vector must not depend on the other texts of the list, for those may be another caller's.

    Args:
        function: "package.module:name" or "path/to/file.py:name", relative to the working directory. A class is made
            into an object first, which is then called.
        arguments: Keyword arguments for the class; for a function, of every call.
        vector_size: D; None to find it by a trial.
        version: What stands for the function in the fingerprint that keeps vectors of two kinds out of one collection:
            name another one when its vectors change. None for a hash of the file that defines it.
        normalize: Whether to scale vectors to length 1, where a request does not say.
        threads: Calls at the same time; more than one only if the function stands it.
        **options: What `Encoder` takes: `batch_tokens`, and Jina's own.

    Raises:
        ConfigurationError: There is no such function, or its trial fails.
    """

    def __init__(
        self,
        function: str,
        *,
        arguments: Mapping[str, Any] | None = None,
        vector_size: int | None = None,
        version: str | None = None,
        normalize: bool = False,
        threads: int = 1,
        **options: Any,
    ) -> None:
        found = _load_function(function)
        super().__init__(
            threads=threads,
            output={"normalize": normalize},
            fingerprint_parts={
                "model": function,
                "arguments": dict(arguments or {}),
                "version": _source_digest(found) if version is None else str(version),
            },
            **options,
        )
        self.function = function
        self._call = _bind(found, function, dict(arguments or {}))
        self.dimensions = self._trial(vector_size)

    def encode_batch(self, batch: list[str]) -> Vectors:
        """Call the function."""
        vectors = np.asarray(self._call(batch))
        if vectors.ndim != 2 or vectors.shape[0] != len(batch) or vectors.dtype.kind not in "fiu":
            raise ValueError(
                f"{self.function} gave {vectors.dtype} of shape {vectors.shape} for {len(batch)} texts; it must give "
                f"numbers of shape ({len(batch)}, D)"
            )
        if self.dimensions is not None and vectors.shape[1] != self.dimensions:
            raise ValueError(f"{self.function} gave vectors of {vectors.shape[1]} dimensions, not {self.dimensions}")
        return vectors.astype(np.float32)

    def about(self) -> dict[str, Any]:
        """What `/status` says about the model."""
        return {"model": self.function, "dimensions": self.dimensions, "normalize": self.defaults.normalize}

    @classmethod
    def describe(cls, uses_with: Mapping[str, Any]) -> dict[str, Any]:
        """The function's name, and the size of the vectors where it is given; nothing is imported."""
        size = uses_with.get("vector_size")
        return {"model": str(uses_with.get("function")), **({} if size is None else {"dimensions": size})}

    @classmethod
    def check(cls, uses_with: Mapping[str, Any], context: Any = None) -> list[str]:
        """Problems of these options that can be known without importing anything, as sentences."""
        problems = [f"{name}: {problem}" for name, problem in check_options(uses_with).items()]
        try:
            source, _ = _split(uses_with.get("function"))
        except ConfigurationError as error:
            return [*problems, f"function: {error.message}"]
        if source.endswith(".py") and not Path(source).expanduser().is_file():
            problems.append(f"function: there is no file {source}")
        return problems

    def _trial(self, vector_size: int | None) -> int:
        try:
            found = int(self.encode_batch(list(_PROBE)).shape[1])
        except Exception as error:  # of the user's own code
            raise ConfigurationError(f"{self.function} fails on a trial: {type(error).__name__}: {error}") from error
        if vector_size is not None and found != vector_size:
            raise ConfigurationError(f"{self.function} gives vectors of {found} dimensions, not {vector_size}")
        return found


class _FileEncoder(TokenEncoder):
    """Encodes texts with a model file and a tokenizer; a subclass names the format."""

    model_class: ClassVar[type[PaddedModel]]

    def __init__(
        self,
        model: str,
        *,
        tokenizer: str | None = None,
        output_name: str | None = None,
        max_length: int | None = None,
        pooling: str | Sequence[str] | None = None,
        device: str = "auto",
        threads: int | None = None,
        **options: Any,
    ) -> None:
        path = _existing(model)
        folder = _tokenizer_folder(path, tokenizer)
        device = choose_device(device)
        files = ModelFiles(
            path=folder,
            name=path.name,
            config={},
            hidden_size=0,
            max_tokens=max_length or _max_tokens(folder),
            max_positions=None,
            pooling=("mean",),
            normalize=False,
            lower_case=False,
        )
        backend = self.model_class(path, device, padding=_padding(folder), output=output_name)  # type: ignore[call-arg]
        self._sentences = backend.sentences
        if backend.sentences and pooling is not None:
            raise ConfigurationError(f"pooling: {path} gives one vector for each text by itself; leave pooling out")
        super().__init__(
            tokenizer=TextTokenizer(files),
            backend=backend,
            model=path.name,
            max_tokens=files.max_tokens,
            pooling="cls" if backend.sentences else "mean" if pooling is None else pooling,
            device=device,
            threads=1 if threads is None and device != "cpu" else threads,
            fingerprint_parts={
                "weights": digest_files(path, *_beside(path)),
                "tokenizer": digest_files(folder / "tokenizer.json"),
                "output": output_name,
            },
            **options,
        )

    def options(self, parameters: Mapping[str, Any] | None, *, keep: bool) -> EncodeParameters:
        """The parameters of a request; see `Encoder.options`."""
        options = super().options(parameters, keep=keep)
        if self._sentences and (options.tokens or options.pooling != self.defaults.pooling):
            raise InvalidInput(
                f"the model {self.model!r} gives one vector for each text: neither pooling nor tokens can be chosen"
            )
        return options

    def about(self) -> dict[str, Any]:
        """What `/status` says about the model."""
        about = super().about()
        return {**about, "pooling": ["model"]} if self._sentences else about

    @classmethod
    def describe(cls, uses_with: Mapping[str, Any]) -> dict[str, Any]:
        """The file's name, and the longest sequence; what the model gives is only known when it is loaded."""
        path = _existing(uses_with.get("model"))
        folder = _tokenizer_folder(path, uses_with.get("tokenizer"))
        return {"model": path.name, "max_tokens": uses_with.get("max_length") or _max_tokens(folder)}

    @classmethod
    def check(cls, uses_with: Mapping[str, Any], context: Any = None) -> list[str]:
        """Problems of these options that can be known before start, as sentences; beyond what `describe` raises."""
        return [f"{name}: {problem}" for name, problem in check_options(uses_with).items()]


class OnnxEncoder(_FileEncoder):
    """Encodes texts with an .onnx file on ONNX Runtime.

    The model takes `input_ids` and may take `attention_mask` and `token_type_ids`, integers of shape (n, L), and gives
    float vectors of the tokens, (n, L, D), or of the texts, (n, D).

    Args:
        model: The file.
        tokenizer: A tokenizer.json or its folder; None for one next to the model, or in the folder above.
        output_name: The output to take; None for the one that is named as exporters do, or the first.
        max_length: Longest sequence in tokens; None for what tokenizer_config.json says, or 512.
        pooling: Default for token vectors, as all that a request may choose; see `EncodeParameters`.
        device: "auto" (a GPU if there is one), "cpu" or "cuda:N".
        threads: Compute threads; None for as many as there are cores, or one on a GPU.
        **options: What `TokenEncoder` takes: `normalize`, `truncation`, `dimensions`, `dtype`, `batch_tokens`, ...

    Raises:
        ConfigurationError: A file is missing or cannot be loaded, or an option does not fit it.
    """

    model_class = OnnxModel


class TorchScriptEncoder(_FileEncoder):
    """Encodes texts with a TorchScript file.

    The arguments and the result are those of an `OnnxEncoder`'s model; arguments of other names are taken to be
    `input_ids`, `attention_mask`, `token_type_ids` in this order, of several results the first one is taken.

    Args:
        model: The file, as `torch.jit.save` writes it.
        tokenizer: A tokenizer.json or its folder; None for one next to the model, or in the folder above.
        output_name: The entry to take where the model gives a dictionary.
        max_length: Longest sequence in tokens; None for what tokenizer_config.json says, or 512.
        pooling: Default for token vectors, as all that a request may choose; see `EncodeParameters`.
        device: "auto" (a GPU if there is one), "cpu" or "cuda:N".
        threads: Compute threads; None for as many as there are cores, or one on a GPU.
        **options: What `TokenEncoder` takes: `normalize`, `truncation`, `dimensions`, `dtype`, `batch_tokens`, ...

    Raises:
        ConfigurationError: A file is missing or cannot be loaded, or an option does not fit it.
    """

    model_class = TorchScriptModel


# ---- functions ----


def _split(function: Any) -> tuple[str, str]:
    source, _, name = function.rpartition(":") if isinstance(function, str) else ("", "", "")
    if not source or not name:
        raise ConfigurationError(f"function must be package.module:name or path/to/file.py:name, got {function!r}")
    return source, name


def _load_function(function: str) -> Callable[..., Any]:
    source, name = _split(function)
    try:
        if source.endswith(".py"):
            path = _existing(source)
            spec = importlib.util.spec_from_file_location(path.stem, path)
            assert spec is not None and spec.loader is not None, "a path that ends with .py has a loader"
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
        else:
            module = importlib.import_module(source)
    except ConfigurationError:
        raise
    except Exception as error:  # of the user's own code
        raise ConfigurationError(f"{source} cannot be imported: {type(error).__name__}: {error}") from error
    found = getattr(module, name, None)
    if not callable(found):
        raise ConfigurationError(f"{source} has no function {name!r}")
    return found  # type: ignore[no-any-return]


def _source_digest(found: Callable[..., Any]) -> str:
    """A hash of the file that defines it; empty for what comes from none."""
    try:
        source = inspect.getsourcefile(inspect.unwrap(found))
    except TypeError:  # an object, or a function in C
        source = getattr(sys.modules.get(type(found).__module__), "__file__", None)
    return digest_files(Path(source)) if source else ""


def _bind(found: Callable[..., Any], function: str, arguments: dict[str, Any]) -> Callable[[list[str]], Any]:
    if not inspect.isclass(found):
        return (lambda texts: found(texts, **arguments)) if arguments else found
    try:
        instance = found(**arguments)
    except Exception as error:  # of the user's own code
        raise ConfigurationError(f"{function} cannot be made: {type(error).__name__}: {error}") from error
    if not callable(instance):
        raise ConfigurationError(f"objects of the class {function} cannot be called; give it a method __call__")
    return instance


# ---- files ----


def _existing(file: Any) -> Path:
    path = Path(str(file or "")).expanduser()
    if not path.is_file():
        raise ConfigurationError(f"there is no file {str(file)!r}; paths are relative to the working directory")
    return path


def _beside(path: Path) -> list[Path]:
    """Files in which exporters keep the weights of an ONNX model that is too large for one: `model.onnx_data`."""
    return [path.with_name(path.name + suffix) for suffix in ("_data", ".data")]


def _tokenizer_folder(model: Path, asked: str | None) -> Path:
    if asked is not None:
        path = Path(asked).expanduser()
        folders = [path.parent if path.name == "tokenizer.json" else path]
    else:
        folders = [model.resolve().parent, model.resolve().parent.parent]
    for folder in folders:
        if (folder / "tokenizer.json").is_file():
            return folder
    raise ConfigurationError(
        f"there is no tokenizer.json in {' or '.join(map(str, folders))}; name one as `tokenizer` in uses_with"
    )


def _max_tokens(folder: Path) -> int:
    limit = _read(folder / "tokenizer_config.json").get("model_max_length")
    return int(limit) if isinstance(limit, (int, float)) and 0 < limit < _ABSURD_LENGTH else _DEFAULT_TOKENS


def _padding(folder: Path) -> int:
    """The padding id of the tokenizer.json; 0 where it has none, for a mask hides it."""
    padding = _read(folder / "tokenizer.json").get("padding") or {}
    return int(padding.get("pad_id", 0))


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}") from None
    return content if isinstance(content, dict) else {}
