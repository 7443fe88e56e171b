"""An encoder with token vectors: pooling, layers, windows, tokens and attention, each as a request wants it.

    documents --Tokenizer--> sequences --batcher--> Backend.forward --View--> vectors, tokens, attention --> fields
                             (1 + windows a text)   once a batch, with       pooled for all sequences
                                                    all layers any wants     of one view together

A family is a subclass whose constructor hands over a `Tokenizer`, a `Backend` and its defaults, and no more:

    class MyEncoder(TokenEncoder):
        def __init__(self, model=None, *, pooling="mean", normalize=False, **options):
            super().__init__(tokenizer=..., backend=..., model="name", max_tokens=512,
                             pooling=pooling, normalize=normalize, **options)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from flowdex.errors import ConfigurationError, InvalidInput, TooLarge
from flowdex_executors.encoder.backend import Backend, TokenVectors, resolve_layers
from flowdex_executors.encoder.base import Encoder, check_finite
from flowdex_executors.encoder.options import EncodeParameters, View
from flowdex_executors.encoder.output import OutputParameters, Vectors, cast, shape_vectors, write_embeddings
from flowdex_executors.encoder.pooling import pool
from flowdex_executors.encoder.targets import Targets
from flowdex_executors.encoder.tokenising import Text, TokeniseOptions, Tokenizer, TokenSequence

if TYPE_CHECKING:
    from torch import Tensor

# No `from __future__ import annotations` here: see flowdex_executors.schema.

__all__ = ["TokenEncoder"]

_ATTENTION_BYTES = 32 * 2**20  # of one request: a reply of 64 MiB is the default limit


@dataclass(frozen=True, slots=True)
class _Job:
    """A sequence in the batcher, and what is wanted of it."""

    sequence: TokenSequence
    view: View

    def __len__(self) -> int:
        return len(self.sequence)


class _Encoded(NamedTuple):
    """What was computed of a sequence of n tokens: float32, of shapes (D,), (n, D) and (layers, heads, n, n)."""

    vector: Vectors | None
    tokens: Vectors | None = None
    attention: Vectors | None = None


class TokenEncoder(Encoder):
    """Encodes texts with a model that gives each token a vector.

    Args:
        tokenizer: Makes sequences of texts.
        backend: Makes token vectors of sequences.
        model: The model's name.
        max_tokens: Longest sequence, special tokens included; None for no limit. A request may lower it.
        pooling: Default of the parameter, as all that follow; see `EncodeParameters`.
        normalize: Whether vectors are scaled to length 1.
        layers: Layers to take token vectors from.
        layer_mode: What is made of several.
        truncation: What becomes of longer texts.
        dimensions: How many leading dimensions to keep.
        dtype: Number type of the embeddings.
        device: The torch device, for `/status`.
        **options: What `Encoder` takes: `batch_tokens`, `threads`, and Jina's own.

    Raises:
        ConfigurationError: An option is wrong, or does not fit the model.
    """

    parameters_model: ClassVar[type[OutputParameters]] = EncodeParameters
    no_tokens: ClassVar[str] = "has a text in which the tokenizer finds no token"
    defaults: EncodeParameters
    dimensions: int

    def __init__(
        self,
        *,
        tokenizer: Tokenizer,
        backend: Backend,
        model: str,
        max_tokens: int | None = None,
        pooling: str | Sequence[str] = "mean",
        normalize: bool = False,
        layers: int | Sequence[int] = (-1,),
        layer_mode: str = "concat",
        truncation: str = "head",
        dimensions: int | None = None,
        dtype: str = "float32",
        device: str = "cpu",
        **options: Any,
    ) -> None:
        output = {
            "pooling": pooling,
            "normalize": normalize,
            "layers": layers,
            "layer_mode": layer_mode,
            "truncation": truncation,
            "dimensions": dimensions,
            "dtype": dtype,
        }
        super().__init__(output=output, **options)
        self.model = model
        self.max_tokens = max_tokens
        self.device = device
        self.tokenizer = tokenizer
        self.backend = backend
        self.padded = backend.padded
        try:
            self.dimensions = self._check(self.defaults)
        except InvalidInput as error:
            raise ConfigurationError(error.message) from None

    # ---- what Encoder asks for ----

    def tokenise(self, texts: Sequence[Text]) -> list[TokenSequence]:
        """Texts to sequences, with the encoder's defaults."""
        return self.tokenizer.tokenise(texts, TokeniseOptions(self.max_tokens, self.defaults.truncation))

    def encode_batch(self, batch: list[TokenSequence]) -> Vectors:
        """Vectors of sequences with the encoder's defaults, without the batcher: float32, (len(batch), dimensions)."""
        view = self._view(self.defaults)
        encoded = self.run_batch([_Job(sequence, view) for sequence in batch])
        return shape_vectors(np.stack([each.vector for each in encoded if each.vector is not None]), self.defaults)

    def prepare_thread(self) -> None:
        """One thread an operation: the parallel work is several batches, and teams of threads would only collide."""
        import torch

        torch.set_num_threads(1)

    def warm_up(self) -> None:
        """Run real forward passes, a short and a long one in each thread, so that no caller pays for the first."""
        view = self._view(self.defaults)
        for text in ("warm", "warm up " * 64):
            sequences = self.tokenise([text] * self.threads)
            self.submit([_Job(sequence, view) for sequence in sequences]).result()

    def about(self) -> dict[str, Any]:
        """What `/status` says about the model."""
        return {
            "model": self.model,
            "dimensions": self.dimensions,
            "max_tokens": self.max_tokens,
            "pooling": list(self.defaults.pooling),
            "layers": list(self.defaults.layers),
            "layer_mode": self.defaults.layer_mode,
            "normalize": self.defaults.normalize,
            "truncation": self.defaults.truncation,
            "dtype": self.defaults.dtype,
            "device": self.device,
            "backend": self.backend.name,
        }

    # ---- a request ----

    def options(self, parameters: Mapping[str, Any] | None, *, keep: bool) -> EncodeParameters:
        """The parameters of a request; see `Encoder.options`."""
        options = super().options(parameters, keep=keep)
        assert isinstance(options, EncodeParameters)
        if options is not self.defaults:
            self._check(options)
            if not options.pooled and (parameters or {}).get("normalize") is None:
                options = options.model_copy(update={"normalize": False})
        return options

    def _check(self, options: EncodeParameters) -> int:
        """Check that the options fit the model; the size of the vectors they give."""
        sizes = [
            self.backend.dimensions[layer] for layer in resolve_layers(options.layers, len(self.backend.dimensions))
        ]
        if options.layer_mode == "mean" and len(set(sizes)) > 1:
            raise InvalidInput(f"layer_mode: layers of the sizes {sizes} have no mean; use concat")
        if options.max_length is not None and self.max_tokens is not None and options.max_length > self.max_tokens:
            raise InvalidInput(
                f"max_length: {options.max_length} is more than this encoder's {self.max_tokens} tokens; "
                "raise max_length in uses_with of the encoder, as far as the model goes"
            )
        size = (sizes[0] if options.layer_mode == "mean" else sum(sizes)) * len(options.pooling)
        if options.dimensions is not None and options.dimensions > size:
            raise InvalidInput(f"dimensions: {options.dimensions} are asked for, but the vectors have {size}")
        if options.attention and getattr(self.backend, "attention_shape", None) is None:
            raise InvalidInput(f"attention: the model {self.model!r} ({self.backend.name}) has none to give")
        if options.truncation == "window_mean" and (not options.pooled or options.tokens or options.attention):
            raise InvalidInput(
                "truncation window_mean gives one vector for all of a text, so it goes with neither pooling none nor "
                "tokens nor attention; use head or tail, or send the windows as documents of their own"
            )
        return options.dimensions or size

    def _view(self, options: EncodeParameters) -> View:
        return View(
            layers=resolve_layers(options.layers, len(self.backend.dimensions)),
            average=options.layer_mode == "mean",
            pooling=options.pooling if options.pooled else (),
            tokens=options.tokens or not options.pooled,
            attention=options.attention,
        )

    async def compute(self, targets: Targets, options: OutputParameters) -> None:
        """Encode the targets and write their fields."""
        assert isinstance(options, EncodeParameters)
        sequences = await self._sequences(targets, options)
        view = self._view(options)
        jobs: list[_Job] = []
        owners: list[int] = []
        for index, sequence in enumerate(sequences):
            for window in (sequence, *sequence.windows):
                jobs.append(_Job(window, view))
                owners.append(index)
        encoded: list[_Encoded] = await self.results(jobs, lambda job: targets.name(owners[job]))
        if not options.pooled:
            write_embeddings(targets.batch, [each.tokens for each in encoded if each.tokens is not None], options)
        else:
            vectors = np.stack([each.vector for each in encoded if each.vector is not None])
            if len(jobs) > len(sequences):
                vectors = _window_means(vectors, np.array(owners), np.array([len(job) for job in jobs]))
            write_embeddings(targets.batch, vectors, options)
        self._write_extras(targets, options, sequences, encoded)

    async def _sequences(self, targets: Targets, options: EncodeParameters) -> list[TokenSequence]:
        tokenise = TokeniseOptions(
            max_tokens=options.max_length or self.max_tokens,
            truncation=options.truncation,
            spans=options.tokens or "sep" in options.pooling,
            exact=options.receipt,
        )
        texts = _inputs(targets)
        sequences = await self.in_parts(partial(self.tokenizer.tokenise, options=tokenise), texts)
        for index, sequence in enumerate(sequences):
            if not len(sequence):
                raise InvalidInput(f"{targets.name(index)} {self.no_tokens}")
            if sequence.dropped and options.truncation == "error":
                raise InvalidInput(
                    f"{targets.name(index)} has more than {tokenise.max_tokens} tokens; shorten it, or choose the "
                    "truncation head, tail or window_mean"
                )
        if "sep" in options.pooling and not all(sequence.special for sequence in sequences):
            raise InvalidInput(f"pooling: sep needs special tokens, which {self.model!r} has none of; use last or mean")
        if "idf" in options.pooling and any(sequence.weights is None for sequence in sequences):
            raise InvalidInput(f"pooling: idf needs weights of words, which {self.model!r} has none of; use mean")
        if options.attention:
            layers, heads = self.backend.attention_shape  # type: ignore[attr-defined]  # checked
            size = sum(4 * layers * heads * len(sequence) ** 2 for sequence in sequences)
            if size > _ATTENTION_BYTES:
                raise TooLarge(
                    f"the attention of these documents is {size >> 20} MiB, more than the {_ATTENTION_BYTES >> 20} MiB "
                    "that a request may ask for; send fewer or shorter texts, or lower max_length"
                )
        return sequences

    def _write_extras(
        self,
        targets: Targets,
        options: EncodeParameters,
        sequences: Sequence[TokenSequence],
        encoded: Sequence[_Encoded],
    ) -> None:
        if options.tokens:
            spans = [[list(span) for span in sequence.spans or ()] for sequence in sequences]
            targets.batch.set_column("token_texts", [self.tokenizer.tokens(sequence) for sequence in sequences])
            targets.batch.set_column("token_spans", spans)
            targets.batch.set_column("token_vectors", [_cast(each.tokens, options) for each in encoded])
        if options.attention:
            targets.batch.set_column("attention", [_cast(each.attention, options) for each in encoded])

    # ---- a batch, in a compute thread ----

    def run_batch(self, batch: list[_Job]) -> list[_Encoded]:
        """Compute a batch: one forward pass, and another one for the sequences whose attention is wanted."""
        import torch

        results: list[_Encoded | None] = [None] * len(batch)
        order = sorted(range(len(batch)), key=lambda index: (batch[index].view.attention, len(batch[index])))
        with torch.inference_mode():
            for attention, part in groupby(order, key=lambda index: batch[index].view.attention):
                indices = list(part)
                encoded = self._forward([batch[index] for index in indices], attention)
                for index, each in zip(indices, encoded, strict=True):
                    results[index] = each
        return results  # type: ignore[return-value]  # all are filled

    def _forward(self, jobs: Sequence[_Job], attention: bool) -> list[_Encoded]:
        layers = sorted({layer for job in jobs for layer in job.view.layers})
        computed = self.backend.forward([job.sequence for job in jobs], layers, attention=attention)
        by_layer = dict(zip(layers, computed.layers, strict=True))
        if all(job.view == jobs[0].view for job in jobs):
            return _look(jobs, by_layer, computed)
        results: list[_Encoded | None] = [None] * len(jobs)
        views: dict[View, list[int]] = {}
        for index, job in enumerate(jobs):
            views.setdefault(job.view, []).append(index)
        for view, indices in views.items():
            part = _select(computed, indices)
            chosen = {layer: by_layer[layer].index_select(0, part.rows) for layer in set(view.layers)}
            for index, each in zip(indices, _look([jobs[i] for i in indices], chosen, part.vectors), strict=True):
                results[index] = each
        return results  # type: ignore[return-value]


class _Part(NamedTuple):
    rows: "Tensor"
    vectors: TokenVectors


def _select(computed: TokenVectors, indices: list[int]) -> _Part:
    """The rows, lengths and attentions of some sequences."""
    import torch

    lengths = computed.lengths
    starts = torch.cumsum(lengths, 0) - lengths
    chosen = torch.tensor(indices, device=lengths.device)
    sizes = lengths[chosen]
    within = torch.arange(int(sizes.sum()), device=lengths.device)
    within = within - torch.repeat_interleave(torch.cumsum(sizes, 0) - sizes, sizes)
    rows = torch.repeat_interleave(starts[chosen], sizes) + within
    attentions = None if computed.attentions is None else tuple(computed.attentions[index] for index in indices)
    return _Part(rows, TokenVectors((), sizes, attentions))


def _look(jobs: Sequence[_Job], by_layer: Mapping[int, "Tensor"], computed: TokenVectors) -> list[_Encoded]:
    """What the one view of these jobs shows: layers combined, tokens pooled, on the CPU as float32."""
    import torch

    view = jobs[0].view
    tensors = [by_layer[layer] for layer in view.layers]
    if len(tensors) == 1:
        values = tensors[0].float()
    elif view.average:
        values = torch.stack(tensors).float().mean(0)
    else:
        values = torch.cat(tensors, dim=1).float()
    vectors: Sequence[Vectors | None] = [None] * len(jobs)
    tokens: Sequence[Vectors | None] = [None] * len(jobs)
    attentions: Sequence[Vectors | None] = [None] * len(jobs)
    if view.pooling:
        pooled = _to_numpy(_pooled(jobs, values, computed.lengths))
        check_finite(pooled)
        vectors = list(pooled)
    if view.tokens:
        rows = _to_numpy(values)
        check_finite(rows)
        tokens = np.split(rows, np.cumsum([len(job) for job in jobs])[:-1])
    if computed.attentions is not None:
        attentions = [_to_numpy(each.float()) for each in computed.attentions]
    return [_Encoded(*each) for each in zip(vectors, tokens, attentions, strict=True)]


def _pooled(jobs: Sequence[_Job], values: "Tensor", lengths: "Tensor") -> "Tensor":
    import torch

    separators = weights = None
    if "sep" in jobs[0].view.pooling:
        separators = torch.tensor([max(job.sequence.special) for job in jobs], device=values.device)
    if "idf" in jobs[0].view.pooling:
        weights = torch.tensor([w for job in jobs for w in job.sequence.weights or ()], device=values.device)
    return pool(values, lengths, jobs[0].view.pooling, separators=separators, weights=weights)


def _to_numpy(tensor: "Tensor") -> Vectors:
    array: Vectors = tensor.cpu().numpy()
    return array


def _inputs(targets: Targets) -> list[Text]:
    """What to tokenise of each target: its text, its text and `text_pair`, or its `words`."""
    batch = targets.batch
    texts: list[str | None] = batch.texts
    pairs, words = batch.column("text_pair"), batch.column("words")
    inputs: list[Text] = []
    for index, (text, pair, own_words) in enumerate(zip(texts, pairs, words, strict=True)):
        if own_words is not None:
            inputs.append(_checked_words(targets, index, own_words, text, pair))
        elif pair is not None:
            if not isinstance(pair, str):
                raise InvalidInput(f"{targets.name(index)}: field 'text_pair' must be a string")
            inputs.append((targets.checked(index, text), targets.checked(index, pair)))
        else:
            inputs.append(targets.checked(index, text))
    return inputs


def _checked_words(targets: Targets, index: int, words: Any, text: str | None, pair: Any) -> list[str]:
    if text is not None or pair is not None:
        raise InvalidInput(f"{targets.name(index)} has words and a text; send one of the two")
    if not isinstance(words, (list, tuple)) or not all(isinstance(word, str) for word in words):
        raise InvalidInput(f"{targets.name(index)}: field 'words' must be a list of strings")
    if not any(word and not word.isspace() for word in words):
        raise InvalidInput(f"{targets.name(index)} has no words to encode")
    return list(words)


def _window_means(vectors: Vectors, owners: npt.NDArray[Any], tokens: npt.NDArray[Any]) -> Vectors:
    """Average the vectors of each text's windows, weighted by their numbers of tokens."""
    starts = np.flatnonzero(np.diff(owners, prepend=-1))
    weights = tokens.astype(np.float32)[:, None]
    return (np.add.reduceat(vectors * weights, starts) / np.add.reduceat(weights, starts)).astype(np.float32)


def _cast(values: Vectors | None, options: EncodeParameters) -> npt.NDArray[Any] | None:
    return None if values is None else cast(values, options.dtype)
