"""ElmoEncoder: a bidirectional language model over characters, from its published files.

    text -> words -> character CNN and LSTMs -> scalar mix of the layers -> mean over the words

The layers that a request may ask for: 0 is the character CNN's, which does not know the context, 1 and 2 (of a model of
two) are the LSTMs', and the one after them, which is also -1 and the default, is the scalar mix of them all.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from flowdex.errors import ConfigurationError
from flowdex_executors.encoder.backend import choose_device
from flowdex_executors.encoder.base import check_options
from flowdex_executors.encoder.batching import Pending
from flowdex_executors.encoder.elmo.backend import ElmoBackend
from flowdex_executors.encoder.elmo.scalar_mix import ScalarMix
from flowdex_executors.encoder.elmo.tokenizer import WordTokenizer
from flowdex_executors.encoder.elmo.weights import read_options
from flowdex_executors.encoder.fingerprint import digest_files
from flowdex_executors.encoder.token_encoder import TokenEncoder
from flowdex_executors.encoder.views import compute_in_order
from flowdex_executors.encoder.word_vectors.tokenizer import SPLITTERS, Splitter, make_splitter

# No `from __future__ import annotations` here: see flowdex_executors.schema.

__all__ = ["ElmoEncoder"]

_MAX_WORDS = 512
_BATCH_WORDS = 512  # of the published size, two to three seconds of a core: what a query may have to wait


class ElmoEncoder(TokenEncoder):
    """Encodes texts with ELMo (Peters et al., 2018).

    Args:
        options: The model's options.json.
        weights: The model's weights.hdf5.
        mix_weights: Learnt weights of the scalar mix, one a layer, before their softmax; None for equal ones.
        gamma: Learnt scale of the scalar mix.
        stateful: Reproduces the authors' implementation, in which sequence i of a request goes on from where sequence i
            of the requests before ended, and so a text has other vectors each time. Requests are then computed one
            after the other. Not for a service.
        words: How texts are split: "treebank", "punctuation", "whitespace" or "scripts"; see `make_splitter`.
        max_length: Longest sequence in words; None for no limit.
        cached_words: How many words' context-free vectors to remember.
        pooling: See `EncodeParameters`, as for all that a request may choose.
        device: "auto" (a GPU if there is one), "cpu" or "cuda:N".
        batch_tokens: Words of a batch.
        threads: Compute threads; None for as many as there are cores, or one on a GPU.
        **others: What `TokenEncoder` takes: `layers`, `normalize`, `truncation`, `dimensions`, `dtype`, ...

    Raises:
        ConfigurationError: A file is not named, cannot be read or does not fit the other, or an option is wrong.
    """

    backend: ElmoBackend

    def __init__(
        self,
        options: str | None = None,
        weights: str | None = None,
        *,
        mix_weights: Sequence[float] | None = None,
        gamma: float = 1.0,
        stateful: bool = False,
        words: Splitter = "treebank",
        max_length: int | None = _MAX_WORDS,
        cached_words: int = 20_000,
        pooling: str | Sequence[str] = "mean",
        device: str = "auto",
        batch_tokens: int = _BATCH_WORDS,
        threads: int | None = None,
        **others: Any,
    ) -> None:
        problems = _problems({"words": words, "max_length": max_length, "cached_words": cached_words})
        if problems:
            raise ConfigurationError(problems[0])
        options_file, weights_file = _file("options", options), _file("weights", weights)
        device = choose_device(device)
        backend = ElmoBackend(
            options_file,
            weights_file,
            mix_weights=mix_weights,
            gamma=gamma,
            stateful=bool(stateful),
            device=device,
            cached_words=cached_words,
        )
        super().__init__(
            tokenizer=WordTokenizer(make_splitter(words)),
            backend=backend,
            model=_name(weights_file),
            max_tokens=max_length,
            pooling=pooling,
            device=device,
            batch_tokens=batch_tokens,
            fingerprint_parts={
                "weights": digest_files(options_file, weights_file),
                "words": words,
                "mix": list(backend.mix.shares),
                **({"stateful": True} if stateful else {}),
            },
            threads=1 if threads is None and device != "cpu" else threads,
            **others,
        )
        self.stateful = bool(stateful)
        self._in_turn = ThreadPoolExecutor(1, "elmo", initializer=self.use_cores, initargs=(1,)) if stateful else None

    def about(self) -> dict[str, Any]:
        """What `/status` says about the model."""
        return {**super().about(), "mix": list(self.backend.mix.shares), "stateful": self.stateful}

    def warm_up(self) -> None:
        """Run real forward passes, of which no state is kept."""
        super().warm_up()
        self.backend.reset()

    def close(self) -> None:
        """Stop the compute threads."""
        if self._in_turn is not None:
            self._in_turn.shutdown(cancel_futures=True)
        super().close()

    def submit(self, sequences: Sequence[Any]) -> Future[list[Any]]:
        """Queue sequences; with `stateful`, as one batch in the request's own order, after the requests before."""
        if self._in_turn is None:
            return super().submit(sequences)
        pending: Pending[Any] = Pending()
        self._in_turn.submit(self._compute, sequences, pending)
        return pending

    def _compute(self, jobs: Sequence[Any], pending: Pending[Any]) -> None:
        import torch

        if not pending.set_running_or_notify_cancel():
            return
        pending.mark_started()
        try:
            with torch.inference_mode():
                results = compute_in_order(self.backend, jobs)
        except Exception as error:  # whatever a model raises goes to its request
            pending.set_exception(error)
        else:
            pending.mark_finished()
            pending.set_result(results)

    @classmethod
    def describe(cls, uses_with: Mapping[str, Any]) -> dict[str, Any]:
        """Model, dimensions, max_tokens, pooling and normalize for these options, from options.json alone.

        Raises:
            ConfigurationError: A file is not named or cannot be read, or an option does not fit the model.
        """
        found = read_options(_file("options", uses_with.get("options")))
        sizes = (2 * found.projection,) * (found.layers + 2)
        facts = {
            "model": _name(_file("weights", uses_with.get("weights"))),
            **cls.describe_vectors(uses_with, sizes),
        }
        max_length = uses_with.get("max_length", _MAX_WORDS)
        return facts if max_length is None else {**facts, "max_tokens": max_length}

    @classmethod
    def check(cls, uses_with: Mapping[str, Any], context: Any = None) -> list[str]:
        """Problems of these options that can be known before start, as sentences; beyond what `describe` raises."""
        problems = [f"{name}: {problem}" for name, problem in check_options(uses_with).items()]
        problems += _problems(uses_with)
        layers = read_options(_file("options", uses_with.get("options"))).layers + 1
        try:
            ScalarMix(layers, uses_with.get("mix_weights"), uses_with.get("gamma", 1.0))
        except ConfigurationError as error:
            name = "gamma" if error.message.startswith("gamma") else "mix_weights"
            problems.append(f"{name}: {error.message}")
        weights = _file("weights", uses_with.get("weights"))
        if not weights.is_file():
            problems.append(f"weights: there is no file {str(weights)!r}; name the model's weights.hdf5")
        if find_spec("h5py") is None:
            problems.append("weights: HDF5 needs a package: run pip install 'flowdex[elmo]'")
        if uses_with.get("stateful") and getattr(context, "replicas", 1) > 1:
            problems.append("stateful: each replica would have a state of its own; use one replica")
        return problems


def _file(option: str, value: Any) -> Path:
    if not isinstance(value, str) or not value:
        raise ConfigurationError(
            f"{option}: ELMo has no default model; name its files in uses_with: "
            f"options: FOLDER/options.json, weights: FOLDER/weights.hdf5 (got {value!r})"
        )
    return Path(value).expanduser()


def _name(weights: Path) -> str:
    """What people call the model: the file's name, or its folder's where the file is plain weights.hdf5."""
    return weights.resolve().parent.name if weights.stem == "weights" else weights.stem


def _problems(uses_with: Mapping[str, Any]) -> list[str]:
    words = uses_with.get("words", "treebank")
    unknown = [] if words in SPLITTERS else [f"words: {words!r} is unknown; choose from {', '.join(SPLITTERS)}"]
    return unknown + [
        f"{name}: must be a whole number of at least {least}, got {value!r}"
        for name, least in (("max_length", 1), ("cached_words", 0))
        if (value := uses_with.get(name)) is not None
        and (isinstance(value, bool) or not isinstance(value, int) or value < least)
    ]
