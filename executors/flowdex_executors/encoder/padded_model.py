"""Models from a file, ONNX or TorchScript: what they take is read off the model, what they give is found by a trial.

    ids of n sequences -> padded to the longest (n, L) with a mask -> model -> (n, L, D) -> real tokens (T, D)
                                                                            `-> (n, D), a vector each

A model takes some of `input_ids`, `attention_mask` and `token_type_ids`. One without a mask would see the padding, so
it gets sequences of one length at a time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowdex.errors import ConfigurationError
from flowdex_executors.encoder.backend import TokenVectors, resolve_layers
from flowdex_executors.encoder.onnx_runtime import start_session
from flowdex_executors.encoder.tokenising import TokenSequence

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["OnnxModel", "PaddedModel", "TorchScriptModel"]

_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
# What exporters call token vectors, then what they call sentence vectors; the first one there is taken.
_OUTPUTS = ("last_hidden_state", "token_embeddings", "sentence_embedding", "sentence_embeddings", "pooler_output")
_ALIKE = 0.95  # cosine; quantised models are not exact, and one that sees padding is far off


class PaddedModel(ABC):
    """A model of one layer as a backend; a subclass loads it and calls it.

    Args:
        path: The file, for messages.
        inputs: Which of the three inputs it takes.
        padding: The id that fills up short sequences.

    Attributes:
        sentences: Whether it gives each sequence one vector. In what `forward` returns, `lengths` are then all 1.

    Raises:
        ConfigurationError: What it gives is no such thing, or depends on the padding.
    """

    name: str
    padded = True
    dimensions: tuple[int, ...]
    sentences: bool

    def __init__(self, path: Path, inputs: Sequence[str], padding: int) -> None:
        unknown = [name for name in inputs if name not in _INPUTS]
        if unknown or "input_ids" not in inputs:
            raise ConfigurationError(
                f"{path} takes {', '.join(inputs) or 'nothing'}; it must take input_ids, and may take attention_mask "
                "and token_type_ids; export it anew"
            )
        self.path = path
        self._inputs = frozenset(inputs)
        self._padding = padding
        self._try()

    @abstractmethod
    def compute(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Call the model with int64 tensors of shape (n, L): vectors of shape (n, L, D) or (n, D), on any device."""

    def forward(
        self, sequences: Sequence[TokenSequence], layers: Sequence[int] = (-1,), *, attention: bool = False
    ) -> TokenVectors:
        """Compute the vectors; see `Backend.forward` and `sentences`."""
        import torch

        count = len(resolve_layers(layers, 1))
        with torch.inference_mode():
            if "attention_mask" in self._inputs:
                parts = [self._compute(sequences)]
            else:
                parts = [self._compute(list(run)) for _, run in groupby(sequences, key=len)]
            values = torch.cat(parts)
        sizes = [1 if self.sentences else len(sequence) for sequence in sequences]
        return TokenVectors((values,) * count, torch.tensor(sizes, device=values.device))

    def _compute(self, sequences: Sequence[TokenSequence]) -> Tensor:
        import torch

        lengths = torch.tensor([len(sequence) for sequence in sequences])
        mask = torch.arange(int(lengths.max())) < lengths.unsqueeze(1)
        ids = torch.full(mask.shape, self._padding)
        ids[mask] = torch.tensor([token for sequence in sequences for token in sequence.ids])
        inputs = {"input_ids": ids, "attention_mask": mask.long()}
        if "token_type_ids" in self._inputs:
            inputs["token_type_ids"] = types = torch.zeros_like(ids)
            types[mask] = torch.tensor([kind for each in sequences for kind in each.type_ids or [0] * len(each)])
        output = self.compute({name: tensor for name, tensor in inputs.items() if name in self._inputs})
        return output if output.ndim == 2 else output[mask.to(output.device)]

    def _try(self) -> None:
        """Find out what the model gives, and that a sequence's neighbours do not matter to it."""
        import torch

        short, long = TokenSequence([1, 2]), TokenSequence([1, 2, 2, 1, 2, 1, 1])
        output = self._trial(lambda: self.compute(self._example(7)))
        if output.ndim not in (2, 3) or not output.is_floating_point() or output.shape[0] != 1:
            raise ConfigurationError(
                f"{self.path} gives {output.dtype} of shape {tuple(output.shape)} for a batch of one sequence of 7 "
                "tokens; it must give float vectors, (1, 7, D) of the tokens or (1, D) of the sequence"
            )
        self.sentences = output.ndim == 2
        self.dimensions = (int(output.shape[-1]),)
        alone = self._trial(lambda: self.forward([short])).layers[0].float()
        beside = self._trial(lambda: self.forward([short, long])).layers[0][: len(alone)].float()
        if torch.cosine_similarity(alone, beside, dim=-1).min() < _ALIKE:
            raise ConfigurationError(
                f"{self.path}: the vectors of a text change when a longer one is beside it, so the model does not heed "
                "its attention_mask; export it with the mask in use, or without one"
            )

    def _example(self, length: int) -> dict[str, Tensor]:
        import torch

        ones = torch.ones((1, length), dtype=torch.int64)
        examples = {"input_ids": ones, "attention_mask": ones, "token_type_ids": torch.zeros_like(ones)}
        return {name: tensor for name, tensor in examples.items() if name in self._inputs}

    def _trial(self, function: Any) -> Any:
        import torch

        try:
            with torch.inference_mode():
                return function()
        except ConfigurationError:
            raise
        except Exception as error:  # the runtimes' errors share no other base
            raise ConfigurationError(
                f"{self.path} fails on a trial batch; are its batch and length dimensions dynamic? {error}"
            ) from error


class OnnxModel(PaddedModel):
    """An .onnx file.

    Args:
        path: The file.
        device: "cpu", "cuda" or "cuda:N".
        padding: The id that fills up short sequences.
        output: Name of the output to take; None for the first of those that exporters use, or the first.

    Raises:
        ConfigurationError: It cannot be loaded, or is not a model that gives vectors.
    """

    name = "onnx"

    def __init__(self, path: Path, device: str = "cpu", *, padding: int = 0, output: str | None = None) -> None:
        import numpy as np

        self._session = start_session(path, device)
        types = {each.name: each.type for each in self._session.get_inputs()}
        self._types = {name: np.int32 if kind == "tensor(int32)" else np.int64 for name, kind in types.items()}
        names = [each.name for each in self._session.get_outputs()]
        if output is not None and output not in names:
            raise ConfigurationError(f"{path} has no output {output!r}; choose from {', '.join(names)}")
        self._output = output or next((name for name in _OUTPUTS if name in names), names[0])
        super().__init__(path, list(types), padding)

    def compute(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Call the session; see `PaddedModel.compute`."""
        import torch

        feeds = {name: tensor.numpy().astype(self._types[name], copy=False) for name, tensor in inputs.items()}
        (output,) = self._session.run([self._output], feeds)
        return torch.from_numpy(output)


class TorchScriptModel(PaddedModel):
    """A TorchScript file. Its inputs are recognised by name; where the names are others, by their order.

    Args:
        path: The file.
        device: A torch device.
        padding: The id that fills up short sequences.
        output: Name of the output to take, where the model gives several by name.

    Raises:
        ConfigurationError: It cannot be loaded, or is not a model that gives vectors.
    """

    name = "torchscript"

    def __init__(self, path: Path, device: str = "cpu", *, padding: int = 0, output: str | None = None) -> None:
        import torch

        try:
            self._module = torch.jit.load(  # type: ignore[no-untyped-call]
                str(path), map_location=device
            ).eval()
        except (RuntimeError, ValueError, OSError) as error:
            raise ConfigurationError(f"{path} is not a TorchScript file that can be loaded: {error}") from None
        self._device = device
        self._output = output
        arguments = [argument.name for argument in self._module.forward.schema.arguments[1:]]
        if not any(name in _INPUTS for name in arguments):
            arguments = list(_INPUTS[: len(arguments)])
        self._order = arguments
        super().__init__(path, arguments, padding)

    def compute(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Call the module; see `PaddedModel.compute`."""
        result = self._module(*(inputs[name].to(self._device) for name in self._order))
        if isinstance(result, Mapping):
            name = self._output or next((name for name in _OUTPUTS if name in result), next(iter(result)))
            if name not in result:
                raise ConfigurationError(f"{self.path} has no output {name!r}; choose from {', '.join(result)}")
            result = result[name]
        while isinstance(result, (tuple, list)):
            result = result[0]
        tensor: Tensor = result
        return tensor
