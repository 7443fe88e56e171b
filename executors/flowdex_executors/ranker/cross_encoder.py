"""A cross-encoder: a model that reads query and text together and says how well they go together.

    (query, text) pairs --tokenise, cut--> sequences --batcher: sorted by length, by token budget--> logits --> scores

Any sequence-classification model of transformers with one label (its logit) or two (the second one's logit less the
first one's). Nogueira and Cho 2019, "Passage Re-ranking with BERT".
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from flowdex.errors import ConfigurationError, ExecutorError, FlowdexError
from flowdex.queue_clock import QueueClock
from flowdex_executors.encoder.backend import choose_device
from flowdex_executors.encoder.batching import Batcher, SequenceFailed
from flowdex_executors.encoder.fingerprint import fingerprint, fingerprint_id
from flowdex_executors.encoder.model_files import ModelFiles, read_model
from flowdex_executors.encoder.pretrained import load_pretrained
from flowdex_executors.encoder.tokenising import TextTokenizer, TokeniseOptions, TokenSequence
from flowdex_executors.ranker.rerank import Scores

if TYPE_CHECKING:
    from prometheus_client.core import Metric

__all__ = ["CrossEncoder", "CrossEncoderSettings", "settings_from"]

_LABELS = (1, 2)


class CrossEncoderSettings(BaseModel):
    """`cross_encoder` in uses_with of a ranker; a string is its `path`.

    Attributes:
        path: A folder or a hub id.
        device: "auto" (a GPU if there is one), "cpu" or "cuda:N".
        max_length: Longest pair in tokens; None for the model's own limit. Of a longer one the text is cut.
        batch_tokens: Tokens of a batch, padding included.
        threads: Batches computed at the same time; None for one a core, or one on a GPU.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str = Field(min_length=1)
    device: str = "auto"
    max_length: int | None = Field(default=None, ge=8)
    batch_tokens: int = Field(default=2048, ge=1)
    threads: int | None = Field(default=None, ge=1)


def settings_from(value: Any) -> CrossEncoderSettings:
    """The settings of a flow file.

    Raises:
        ConfigurationError: One is wrong.
    """
    try:
        return CrossEncoderSettings.model_validate({"path": value} if isinstance(value, str) else value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(["cross_encoder", *map(str, first["loc"])])
        raise ConfigurationError(f"{where}: {first['msg']}") from None


def read_files(settings: CrossEncoderSettings, *, download: bool = True) -> ModelFiles:
    """The model's configuration, checked.

    Raises:
        NotDownloaded: It would have to be downloaded.
        ConfigurationError: It cannot be found, or is no model of this kind.
    """
    files = read_model(settings.path, download=download)
    labels = label_count(files.config)
    kinds = files.config.get("architectures") or ()
    if kinds and not any(str(kind).endswith("ForSequenceClassification") for kind in kinds):
        raise ConfigurationError(
            f"{files.path} holds a {kinds[0]}, which gives no score for a pair of texts; name a model of kind "
            "...ForSequenceClassification"
        )
    if labels not in _LABELS:
        raise ConfigurationError(
            f"{files.path} has {labels} labels; a cross-encoder has 1 (relevance), or 2 (the second is relevant)"
        )
    if not files.has_weights:
        raise ConfigurationError(f"{files.path} holds no weights (model.safetensors or pytorch_model.bin)")
    limit = files.max_positions
    if settings.max_length is not None and limit is not None and settings.max_length > limit:
        raise ConfigurationError(f"max_length {settings.max_length} is more than the {limit} positions of {files.name}")
    return files


def label_count(config: Mapping[str, Any]) -> int:
    """Number of labels that a config.json tells; 2 where it tells none, as transformers has it."""
    names = config.get("id2label")
    return len(names) if names else int(config.get("num_labels") or 2)


class CrossEncoder:
    """Scores pairs with a model in memory.

    Args:
        settings: Which model, and how to run it.

    Raises:
        ConfigurationError: It cannot be found or loaded, or is none that scores pairs.
    """

    replaces = True

    def __init__(self, settings: CrossEncoderSettings) -> None:
        from transformers import AutoModelForSequenceClassification

        files = read_files(settings)
        self._device = choose_device(settings.device)
        model, loading = load_pretrained(AutoModelForSequenceClassification, files)
        missing = sorted(loading["missing_keys"])
        if missing:  # transformers would go on with random numbers
            raise ConfigurationError(
                f"the weights of model {files.name!r} ({files.path}) lack {missing[0]} and {len(missing) - 1} others; "
                "name a model that was trained as a cross-encoder"
            )
        self.name = files.name
        self.max_tokens = settings.max_length or files.max_tokens
        self.fingerprint = fingerprint({"model": files.name, **files.digests})
        self._model = model.float().to(self._device).eval()
        self._padding = max(int(files.config.get("pad_token_id") or 0), 0)
        self._has_types = int(files.config.get("type_vocab_size") or 0) > 1
        self._tokenizer = TextTokenizer(files)
        self._batcher: Batcher[TokenSequence, float] = Batcher(
            self._run,
            budget=settings.batch_tokens,
            threads=settings.threads or _threads(self._device),
            padded=True,
            use_cores=_use_cores,
            is_exhaustion=_is_exhaustion,
            name="cross-encoder",
        )

    async def score(self, query: str, texts: Sequence[str], timeout: float) -> Scores:
        """A probability for each text, 0 to 1; see `Scorer.score`.

        Raises:
            ExecutorError: The model fails on a pair.
        """
        tokenise = partial(self._tokenizer.tokenise, options=TokeniseOptions(self.max_tokens))
        pending = self._batcher.submit(await asyncio.to_thread(tokenise, [(query, text) for text in texts]))
        try:
            logits = await asyncio.wrap_future(pending)
        except SequenceFailed as failure:
            if isinstance(failure.__cause__, FlowdexError):
                raise failure.__cause__ from failure
            raise ExecutorError(
                f"the cross-encoder {self.name!r} failed on text {failure.index} with "
                f"{type(failure.__cause__).__name__}; the ranker's log has the details"
            ) from failure
        # In 64 bits two logits have the same probability only beyond 36, where no model goes.
        return 1.0 / (1.0 + np.exp(-np.asarray(logits, dtype=np.float64)))

    def warm_up(self) -> None:
        """Run real forward passes, a short and a long one."""
        pairs = [("warm", "up"), ("warm", "up " * 100)]
        self._batcher.submit(self._tokenizer.tokenise(pairs, TokeniseOptions(self.max_tokens))).result()

    @property
    def queue_clock(self) -> QueueClock:
        """Times how long requests wait for a compute thread."""
        return self._batcher.queue

    def metrics(self) -> Iterator[Metric]:
        """What Prometheus reads of it."""
        from flowdex_executors.encoder.batch_metrics import batch_metrics

        return batch_metrics(self._batcher)

    def close(self) -> None:
        """End the compute threads."""
        self._batcher.close()

    def about(self) -> dict[str, Any]:
        """What /status says of it."""
        return {
            "model": self.name,
            "fingerprint": self.fingerprint,
            "id": fingerprint_id(self.fingerprint),
            "device": self._device,
            "max_tokens": self.max_tokens,
            "queue": self._batcher.waiting,
        }

    def _run(self, batch: list[TokenSequence]) -> list[float]:
        import torch

        longest = max(map(len, batch))

        def padded(rows: Sequence[Sequence[int]], filling: int) -> Any:
            return torch.tensor([[*row, *[filling] * (longest - len(row))] for row in rows], device=self._device)

        inputs = {
            "input_ids": padded([sequence.ids for sequence in batch], self._padding),
            "attention_mask": padded([[1] * len(sequence) for sequence in batch], 0),
        }
        if self._has_types:
            inputs["token_type_ids"] = padded([each.type_ids or [0] * len(each) for each in batch], 0)
        with torch.inference_mode():
            logits = self._model(**inputs).logits.float()
        scores = logits[:, -1] if logits.shape[1] == 1 else logits[:, 1] - logits[:, 0]
        if not torch.isfinite(scores).all():
            raise FloatingPointError("the model gave a score that is not finite")
        found: list[float] = scores.cpu().tolist()
        return found


def _threads(device: str) -> int:
    from flowdex_executors.encoder.base import available_cores

    return available_cores() if device == "cpu" else 1


def _use_cores(cores: int) -> None:
    import torch

    torch.set_num_threads(1)  # as in `TokenEncoder.use_cores`


def _is_exhaustion(error: BaseException) -> bool:
    import torch

    return isinstance(error, (MemoryError, torch.OutOfMemoryError))
