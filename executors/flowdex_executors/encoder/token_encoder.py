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

import asyncio
import hashlib
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from jina import requests

from flowdex.errors import ConfigurationError, InvalidInput, TooLarge
from flowdex_executors.encoder.attention import (
    ATTENTION_VIEW,
    AttentionModel,
    AttentionParameters,
    AttentionSource,
    check_size,
    chosen_layers,
)
from flowdex_executors.encoder.backend import Backend, UsesCores, resolve_layers
from flowdex_executors.encoder.base import Encoder, Endpoint, check_options, note_work
from flowdex_executors.encoder.fingerprint import fingerprint, fingerprint_id
from flowdex_executors.encoder.options import DecodeParameters, EncodeParameters, TokenizeParameters, vector_size
from flowdex_executors.encoder.output import (
    Dtype,
    OutputParameters,
    Vectors,
    cast,
    shape_vectors,
    write_embeddings,
    write_receipts,
)
from flowdex_executors.encoder.prompts import Prompts, with_prefix, without_prefix
from flowdex_executors.encoder.targets import Targets, find_targets
from flowdex_executors.encoder.tokenising import (
    Text,
    TokenIdTokenizer,
    TokeniseOptions,
    Tokenizer,
    TokenSequence,
)
from flowdex_executors.encoder.views import Encoded, Job, View, compute_jobs
from flowdex_executors.parameters import parse_parameters, remember
from flowdex_executors.schema import DocumentColumns

# No `from __future__ import annotations` here: see flowdex_executors.schema.

__all__ = ["TokenEncoder"]

_FEW_CHARACTERS = 500


class TokenEncoder(Encoder):
    """Encodes texts with a model that gives each token a vector.

    Args:
        tokenizer: Makes sequences of texts.
        backend: Makes token vectors of sequences.
        model: The model's name.
        max_tokens: Longest sequence, special tokens included; None for no limit. A request may lower it.
        fingerprint_parts: What the vectors depend on beside the options here, as JSON values: digests of the weights
            and of the vocabulary (`fingerprint.digest_files`), and options of the family that change vectors.
        pooling: Default of the parameter, as all that follow; see `EncodeParameters`.
        normalize: Whether vectors are scaled to length 1.
        layers: Layers to take token vectors from.
        layer_mode: What is made of several.
        truncation: What becomes of longer texts.
        dimensions: How many leading dimensions to keep.
        dtype: Number type of the embeddings.
        prompts: Texts that go before the text, by name: "query" for /search, "document" (or "passage") for /index.
        prompt: Name of the prompt that /encode uses where a request names none.
        device: The torch device, for `/status`.
        compute_dtype: The number type that the model computes in, for `/status` and the fingerprint.
        attention_tokens: Longest sequence that /attention takes; its answer grows with the square.
        attention_model: What gives attention where the backend has none to give.
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
        fingerprint_parts: Mapping[str, Any] | None = None,
        pooling: str | Sequence[str] = "mean",
        normalize: bool = False,
        layers: int | Sequence[int] = (-1,),
        layer_mode: str = "concat",
        truncation: str = "head",
        dimensions: int | None = None,
        dtype: str = "float32",
        prompts: Mapping[str, str] | None = None,
        prompt: str | None = None,
        device: str = "cpu",
        compute_dtype: str = "float32",
        attention_tokens: int = 128,
        attention_model: AttentionModel | None = None,
        **options: Any,
    ) -> None:
        for name, problem in check_options({"attention_tokens": attention_tokens}).items():
            raise ConfigurationError(f"{name} {problem}")
        output = {
            "pooling": pooling,
            "layers": layers,
            "layer_mode": layer_mode,
            "truncation": truncation,
            "dimensions": dimensions,
        }
        super().__init__(
            normalize=normalize, dtype=dtype, output=output, fingerprint_parts=fingerprint_parts, **options
        )
        self.model = model
        self.max_tokens = max_tokens
        self.device = device
        self.compute_dtype = compute_dtype
        self.tokenizer = tokenizer
        self.backend = backend
        self.padded = backend.padded
        self.prompts = Prompts(prompts or {}, prompt)
        self.attention_tokens = min(attention_tokens, max_tokens or attention_tokens)
        self._attention = AttentionSource(backend, attention_model)
        try:
            self.dimensions = self._check(self.defaults)
        except InvalidInput as error:
            raise ConfigurationError(error.message) from None
        self._fingerprints: dict[EncodeParameters, str] = {}

    @classmethod
    def describe_vectors(
        cls, uses_with: Mapping[str, Any], layer_sizes: Sequence[int], **defaults: Any
    ) -> dict[str, Any]:
        """`dimensions`, `pooling` and `normalize` for options of a flow file: a family's part for its `describe`.

        Args:
            uses_with: The options.
            layer_sizes: What `Backend.dimensions` will be.
            **defaults: The family's or the model's own defaults of the parameters.

        Raises:
            ConfigurationError: An option is wrong, or does not fit the model.
        """
        names = cls.parameters_model.model_fields.keys() - {"max_length", "prompt"}
        given = {name: uses_with[name] for name in names if uses_with.get(name) is not None}
        options = cls.checked_defaults({**defaults, **given})
        assert isinstance(options, EncodeParameters)
        try:
            size = vector_size(options, layer_sizes)
        except InvalidInput as error:
            raise ConfigurationError(error.message) from None
        return {"dimensions": size, "pooling": list(options.pooling), "normalize": options.normalize}

    # ---- what Encoder asks for ----

    def tokenise(self, texts: Sequence[Text]) -> list[TokenSequence]:
        """Texts to sequences, with the encoder's defaults."""
        return self.tokenizer.tokenise(texts, TokeniseOptions(self.max_tokens, self.defaults.truncation))

    def encode_batch(self, batch: list[TokenSequence]) -> Vectors:
        """Vectors of sequences with the encoder's defaults, without the batcher: float32, (len(batch), dimensions)."""
        view = self._view(self.defaults)
        encoded = self.run_batch([Job(sequence, view) for sequence in batch])
        return shape_vectors(np.stack([each.vector for each in encoded if each.vector is not None]), self.defaults)

    def run_batch(self, batch: list[Job]) -> list[Encoded]:
        """Compute a batch, in a compute thread."""
        return compute_jobs(self.backend, batch, self._attention.backend)

    def use_cores(self, cores: int) -> None:
        """One thread an operation in torch, whose teams wake too slowly to help; other libraries as they see fit."""
        import torch

        torch.set_num_threads(1)
        if isinstance(self.backend, UsesCores):
            self.backend.use_cores(cores)

    def warm_up(self) -> None:
        """Run real forward passes, so that no caller pays for the first: in each thread, and by all for one text."""
        for text, count in (("warm", self.threads), ("warm up " * 64, self.threads), ("warm", 1)):
            self.submit_sequences(self.tokenise([text] * count)).result()

    def submit_sequences(self, sequences: Sequence[TokenSequence]) -> Future[list[Encoded]]:
        """Queue sequences, to be encoded with the defaults."""
        view = self._view(self.defaults)
        return self.submit([Job(sequence, view) for sequence in sequences])

    def vector_of(self, row: Encoded) -> Vectors:
        """The vector, or without pooling those of the tokens."""
        found = row.tokens if row.vector is None else row.vector
        assert found is not None, "the view asks for one of them"
        return found

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
            "prompts": dict(self.prompts.texts),
            "device": self.device,
            "compute_dtype": self.compute_dtype,
            "backend": self.backend.name,
            "attention": None if (shape := self._attention.shape) is None else {"layers": shape[0], "heads": shape[1]},
        }

    def fingerprint(self, options: OutputParameters) -> str:
        """What makes the vectors with these options, in one line; see `encoder.fingerprint`."""
        assert isinstance(options, EncodeParameters)
        if (found := self._fingerprints.get(options)) is None:
            found = self._fingerprint(options)
            remember(self._fingerprints, options, found)
        return found

    def _fingerprint(self, options: EncodeParameters) -> str:
        count = len(self.backend.dimensions)
        # Counted from the top, where all backends of a model agree: some give the last layer only.
        layers = [layer - count for layer in resolve_layers(options.layers, count)]
        parts: dict[str, Any] = {
            "model": self.model,
            "pooling": list(options.pooling),
            "layers": layers,
            "normalize": options.normalize,
            "dimensions": vector_size(options, self.backend.dimensions),
            "dtype": options.dtype,
        }
        # What most encoders do not have is not in their fingerprints.
        if len(layers) > 1:
            parts["layer_mode"] = options.layer_mode
        if options.mask_special:
            parts["mask_special"] = True
        if self.compute_dtype != "float32":
            parts["compute_dtype"] = self.compute_dtype
        if self.prompts.texts:
            parts["prompts"] = hashlib.sha256(json.dumps(self.prompts.texts, sort_keys=True).encode()).hexdigest()[:16]
        return fingerprint({**parts, **self.fingerprint_parts})

    # ---- the tokenizer by itself ----

    @requests(on="/tokenize")  # type: ignore[untyped-decorator]
    async def tokenize(
        self, docs: DocumentColumns, parameters: dict[str, Any] | None = None, **kwargs: Any
    ) -> DocumentColumns:
        """Give every document the tokens of its text, none cut off: `token_texts` and `token_spans`.

        The spans are those of the text with its prompt, if it has one; [0, 0] for special tokens. Where tokens are
        numbers of a vocabulary, it gets `token_ids` too, with which it can be encoded.

        Raises:
            InvalidInput: A text is blank or absent, or a parameter is wrong.
        """
        wanted = parse_parameters(TokenizeParameters, parameters)
        prompt = self.prompts.text(self.prompts.name(wanted.prompt, "encode"))
        targets = find_targets(docs.batch, keep=False)
        texts = [with_prefix(prompt, text) for text in targets.inputs()]
        sequences: list[TokenSequence] = await self.in_parts(
            partial(self.tokenizer.tokenise, options=TokeniseOptions(spans=True)), texts
        )
        batch = targets.batch
        batch.set_column("token_texts", [self.tokenizer.tokens(sequence) for sequence in sequences])
        batch.set_column("token_spans", [_spans(sequence) for sequence in sequences])
        if isinstance(self.tokenizer, TokenIdTokenizer):
            batch.set_column("token_ids", [np.array(sequence.ids, dtype=np.int32) for sequence in sequences])
        return docs

    @requests(on="/decode")  # type: ignore[untyped-decorator]
    async def decode(
        self, docs: DocumentColumns, parameters: dict[str, Any] | None = None, **kwargs: Any
    ) -> DocumentColumns:
        """Give every document the text of its `token_ids`.

        Raises:
            InvalidInput: It has none, one is not in the vocabulary, the model has none, or a parameter is wrong.
        """
        wanted = parse_parameters(DecodeParameters, parameters)
        tokenizer = self.tokenizer
        if not isinstance(tokenizer, TokenIdTokenizer):
            raise InvalidInput(f"the tokens of {self.model!r} have no ids, and so there is nothing to decode")
        targets = find_targets(docs.batch, keep=False)
        ids = [targets.token_ids(row, given).ids for row, given in enumerate(targets.batch.column("token_ids"))]
        targets.batch.texts = await asyncio.to_thread(tokenizer.decode, ids, skip_special=wanted.skip_special)
        return docs

    # ---- attention by itself ----

    @requests(on="/attention")  # type: ignore[untyped-decorator]
    async def attention(
        self, docs: DocumentColumns, parameters: dict[str, Any] | None = None, **kwargs: Any
    ) -> DocumentColumns:
        """Give every document the attention of its text, or of its `text` and `text_pair` read as one sequence.

        That is `attention`, of shape (layers, heads, tokens, tokens): in each row, how much of each token went into
        the row's. With it come `token_texts`, `token_spans`, and `attention_about`: the `model`, the numbers of the
        `layers`, and for a pair `pair_start`, the position of the first token of the second text. Texts stand as they
        are, without prompt and context.

        Raises:
            InvalidInput: The model has no attention, a text is blank or absent, or a parameter is wrong.
            TooLarge: A text has more than `attention_tokens` tokens, or the answer would be too large.
        """
        wanted = parse_parameters(AttentionParameters, parameters)
        source = self._attention
        if source.shape is None:
            raise InvalidInput(
                f"the model {self.model!r} ({self.backend.name}) has no attention to show: only transformers have, "
                "as those of flowdex_executors.BertEncoder and GptEncoder; of several encoders, name the one to ask"
            )
        layers = chosen_layers(wanted.layers, source.shape[0])
        targets = find_targets(docs.batch, keep=False)
        options = TokeniseOptions(self.attention_tokens, "error", spans=True)
        sequences: list[TokenSequence] = await self.in_parts(
            partial(self.tokenizer.tokenise, options=options), targets.inputs()
        )
        for index, sequence in enumerate(sequences):
            if not len(sequence):
                raise InvalidInput(f"{targets.name(index)} {self.no_tokens}")
            if sequence.dropped:
                name = "the text" if len(targets) == 1 else targets.name(index)
                raise TooLarge(
                    f"{name} has more than the {self.attention_tokens} tokens whose attention is shown; "
                    "shorten it, or raise attention_tokens in uses_with of the encoder, as far as the model goes"
                )
        check_size(sequences, source.shape)
        if source.backend is None:
            await asyncio.to_thread(source.load)
        pending = self.submit([Job(sequence, ATTENTION_VIEW) for sequence in sequences])
        encoded: list[Encoded] = await self.results(pending, targets.name)
        await asyncio.to_thread(self._write_attention, targets, sequences, encoded, layers, wanted.dtype)
        return docs

    def _write_attention(
        self,
        targets: Targets,
        sequences: Sequence[TokenSequence],
        encoded: Sequence[Encoded],
        layers: list[int],
        dtype: Dtype,
    ) -> None:
        batch = targets.batch
        batch.set_column("token_texts", [self.tokenizer.tokens(sequence) for sequence in sequences])
        batch.set_column("token_spans", [_spans(sequence) for sequence in sequences])
        about = {"model": self.model, "layers": layers}
        batch.set_column("attention_about", [{**about, "pair_start": sequence.pair_start} for sequence in sequences])
        weights = [each.attention for each in encoded]
        batch.set_column("attention", [None if each is None else cast(each[layers], dtype) for each in weights])

    # ---- a request ----

    def options(self, parameters: Mapping[str, Any] | None, *, keep: bool) -> EncodeParameters:
        """The parameters of a request; see `Encoder.options`. Without pooling, vectors are scaled only when asked."""
        options = super().options(parameters, keep=keep)
        assert isinstance(options, EncodeParameters)
        if options is not self.defaults:
            self._check(options)
            if not options.pooled and (parameters or {}).get("normalize") is None:
                options = options.model_copy(update={"normalize": False})
        return options

    def for_endpoint(self, options: OutputParameters, endpoint: Endpoint) -> OutputParameters:
        """The options with the endpoint's prompt; see `Encoder.for_endpoint`."""
        assert isinstance(options, EncodeParameters)
        if endpoint != "encode" and not options.pooled:
            raise InvalidInput("pooling: none is for /encode only; an index holds one vector for each passage")
        super().for_endpoint(options, endpoint)
        prompt = self.prompts.name(options.prompt, endpoint)
        return options if prompt == options.prompt else options.model_copy(update={"prompt": prompt})

    def _check(self, options: EncodeParameters) -> int:
        """Check that the options fit the model; the size of the vectors they give."""
        size = vector_size(options, self.backend.dimensions)
        if options.max_length is not None and self.max_tokens is not None and options.max_length > self.max_tokens:
            raise InvalidInput(
                f"max_length: {options.max_length} is more than this encoder's {self.max_tokens} tokens; "
                "raise max_length in uses_with of the encoder, as far as the model goes"
            )
        if options.attention and getattr(self.backend, "attention_shape", None) is None:
            raise InvalidInput(f"attention: the model {self.model!r} ({self.backend.name}) has none to give")
        return size

    def _view(self, options: EncodeParameters) -> View:
        return View(
            layers=resolve_layers(options.layers, len(self.backend.dimensions)),
            average=options.layer_mode == "mean",
            pooling=options.pooling if options.pooled else (),
            tokens=options.tokens or not options.pooled,
            attention=options.attention,
            mask_special=options.mask_special,
        )

    async def compute(self, targets: Targets, options: OutputParameters) -> None:
        """Encode the targets and write their fields."""
        assert isinstance(options, EncodeParameters)
        sequences = await self._sequences(targets, options)
        view = self._view(options)
        jobs: list[Job] = []
        owners: list[int] = []
        for index, sequence in enumerate(sequences):
            for window in (sequence, *sequence.windows):
                jobs.append(Job(window, view))
                owners.append(index)
        pending = self.submit(jobs)
        encoded: list[Encoded] = await self.results(pending, lambda job: targets.name(owners[job]))
        note_work(pending, jobs)
        write = partial(self._write, targets, options, sequences, encoded, np.array(owners))
        if options.tokens or options.attention or not options.pooled:
            await asyncio.to_thread(write)  # may be megabytes
        else:
            write()
        if options.receipt:
            tokens = [sum(map(len, (sequence, *sequence.windows))) for sequence in sequences]
            dropped = [sequence.dropped for sequence in sequences]
            write_receipts(targets.batch, pending, fingerprint_id(self.fingerprint(options)), tokens, dropped)

    async def _sequences(self, targets: Targets, options: EncodeParameters) -> list[TokenSequence]:
        tokenise = TokeniseOptions(
            max_tokens=options.max_length or self.max_tokens,
            truncation=options.truncation,
            spans=options.tokens or options.mask_special or "sep" in options.pooling,
            exact=options.receipt,
        )
        prompt = self.prompts.text(options.prompt)
        texts = targets.inputs()
        prefixes = [prompt + context for context in targets.contexts()]
        tokenised = [with_prefix(prefix, text) for prefix, text in zip(prefixes, texts, strict=True)]
        cut = partial(self.tokenizer.tokenise, options=tokenise)
        sequences = cut(tokenised) if _few_words(tokenised) else await self.in_parts(cut, tokenised)
        for index, sequence in enumerate(sequences):
            if not len(sequence):
                raise InvalidInput(f"{targets.name(index)} {self.no_tokens}")
            if sequence.dropped and options.truncation == "error":
                raise InvalidInput(
                    f"{targets.name(index)} has more than {tokenise.max_tokens} tokens; shorten it, or choose the "
                    "truncation head, tail or window_mean"
                )
            if prompt and (sequence.windows or (sequence.dropped and options.truncation == "tail")):
                raise InvalidInput(
                    f"{targets.name(index)} has more than {tokenise.max_tokens} tokens, and the truncation "
                    f"{options.truncation} would cut off the prompt; use head, or shorten the text"
                )
        if "sep" in options.pooling and not all(sequence.special for sequence in sequences):
            raise InvalidInput(f"pooling: sep needs special tokens, which {self.model!r} has none of; use last or mean")
        if "idf" in options.pooling and any(sequence.weights is None for sequence in sequences):
            raise InvalidInput(f"pooling: idf needs weights of words, which {self.model!r} has none of; use mean")
        if options.attention:
            assert self._attention.shape is not None  # _check has seen that it is there
            check_size(sequences, self._attention.shape)
        if options.tokens:
            return [without_prefix(*each) for each in zip(prefixes, texts, sequences, strict=True)]
        return sequences

    def _write(
        self,
        targets: Targets,
        options: EncodeParameters,
        sequences: Sequence[TokenSequence],
        encoded: Sequence[Encoded],
        owners: npt.NDArray[Any],
    ) -> None:
        """Write the fields of the targets.

        Args:
            targets: The documents.
            options: What was wanted.
            sequences: The sequence of each target.
            encoded: What was computed of each sequence and window.
            owners: The target of each of these.
        """
        batch = targets.batch
        if options.pooled:
            vectors = np.stack([each.vector for each in encoded if each.vector is not None])
            if len(encoded) > len(sequences):
                counts = [len(window) for sequence in sequences for window in (sequence, *sequence.windows)]
                vectors = _window_means(vectors, owners, np.array(counts))
            write_embeddings(batch, vectors, options)
        else:
            write_embeddings(batch, [each.tokens for each in encoded if each.tokens is not None], options)
        if options.tokens:
            batch.set_column("token_texts", [self.tokenizer.tokens(sequence) for sequence in sequences])
            batch.set_column("token_spans", [np.array(sequence.spans, dtype=np.int32) for sequence in sequences])
            batch.set_column("token_vectors", [_cast(each.tokens, options) for each in encoded])
        if options.attention:
            batch.set_column("attention", [_cast(each.attention, options) for each in encoded])


def _few_words(texts: Sequence[Text]) -> bool:
    """Whether texts are so short that a thread would take longer to wake than to tokenise them."""
    characters = 0
    for text in texts:
        if not isinstance(text, str):
            return False
        characters += len(text)
    return characters <= _FEW_CHARACTERS


def _window_means(vectors: Vectors, owners: npt.NDArray[Any], tokens: npt.NDArray[Any]) -> Vectors:
    """Average the vectors of each text's windows, weighted by their numbers of tokens."""
    starts = np.flatnonzero(np.diff(owners, prepend=-1))
    weights = tokens.astype(np.float32)[:, None]
    return (np.add.reduceat(vectors * weights, starts) / np.add.reduceat(weights, starts)).astype(np.float32)


def _spans(sequence: TokenSequence) -> npt.NDArray[np.int32]:
    return np.array(sequence.spans or [], dtype=np.int32).reshape(-1, 2)


def _cast(values: Vectors | None, options: EncodeParameters) -> npt.NDArray[Any] | None:
    return None if values is None else cast(values, options.dtype)
