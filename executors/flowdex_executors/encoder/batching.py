"""The batcher: sequences of many requests, computed together.

    request A: [a1 a2 a3 ...]  --submit--> bulk        -> |          |   compute thread 1: run([a1 a2])
    request B: [b1]            --submit--> interactive -> | take()   | <
                                                          |          |   compute thread 2: run([b1])
                                        Future <- results, when a request's last sequence is done

What is queued is sequences, not requests, and there are no timers: a compute thread that is free takes, at once, up to
its token budget of what is there, and what arrives while all are busy makes the next batch. Three rules give the order:

- A request of few tokens is *interactive* and goes ahead of bulk; every fifth batch is bulk's all the same. What a
  request says of its priority counts more, but nothing larger than a batch is interactive.
- Within each of the two, a request is due at `tokens computed before it came + its own tokens`: equal requests are
  served in order of arrival, a small one passes a large one, and none waits for ever.
- Within a request, long sequences come first, so that a batch holds sequences of like length and pads little.

Several batches at once make the best of the cores, and one thread computes each. Only a short request that finds all
else idle is computed by a team of threads: nobody else needs the cores, and its caller waits for nothing but it.

A request whose future is cancelled or has failed is dropped, whatever is left of it. When a batch fails it is halved
until the sequences that cannot be computed are alone; only their requests fail. When it fails for want of memory,
batches are smaller from then on, and twice as large again after every hundred that were computed.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from flowdex.errors import Unavailable
from flowdex.priority import Priority
from flowdex.queue_clock import QueueClock

__all__ = ["BatchCounts", "Batcher", "Pending", "SequenceFailed"]

S = TypeVar("S")
R = TypeVar("R")

BATCH_SIZES = tuple(2**power for power in range(10))
"""Upper bounds of the histogram of batches, in sequences."""

_BULK_SHARE = 5
_INTERACTIVE_PART = 4  # a request of at most a quarter of a batch is interactive
_SMALLEST_SHARE = 128  # tokens; below that, splitting a batch between idle threads costs more than it gains
_TRUSTED_AFTER = 100  # batches; what took the memory, in this process or beside it, may be gone by then
_LARGEST_TEAM = 4  # cores; matrices as small as a short text's are not worth more
_TEAM_TOKENS = 256  # of a batch for a team: what arrives while it computes shares the cores with it for a moment only

_log = logging.getLogger(__name__)


class SequenceFailed(Exception):
    """A sequence that cannot be computed, alone or in company; the cause is its `__cause__`.

    Args:
        index: Its position in the request.
    """

    def __init__(self, index: int) -> None:
        super().__init__(f"sequence {index} cannot be computed")
        self.index = index


class Pending(Future[list[R]]):
    """The results of a request, in order, when they are there; cancelling it drops what has not been computed.

    Attributes:
        queue_ms: Milliseconds from its arrival until its first sequence was taken; up to now, where none was yet.
        compute_ms: Milliseconds from then until its last sequence was done; up to now, where it is not.
    """

    def __init__(self) -> None:
        super().__init__()
        self._submitted = time.monotonic()
        self._started: float | None = None
        self._finished: float | None = None

    @property
    def queue_ms(self) -> float:  # noqa: D102 - above
        return 1000 * ((self._started or time.monotonic()) - self._submitted)

    @property
    def compute_ms(self) -> float:  # noqa: D102 - above
        if self._started is None:
            return 0.0
        return 1000 * ((self._finished or time.monotonic()) - self._started)

    def mark_started(self) -> None:
        """Its first sequence is taken."""
        if self._started is None:
            self._started = time.monotonic()

    def mark_finished(self) -> None:
        """Its last sequence is done."""
        self._finished = time.monotonic()


@dataclass(order=True)
class _Request(Generic[S, R]):
    """A request in the queue, ordered by when it is due."""

    due: int
    serial: int
    sequences: Sequence[S] = field(compare=False)
    costs: Sequence[int] = field(compare=False)
    order: list[int] = field(compare=False)
    results: list[R | None] = field(compare=False)
    future: Pending[R] = field(compare=False)
    ticket: int = field(compare=False)
    taken: int = field(default=0, compare=False)
    unfinished: int = field(default=0, compare=False)


_Item = tuple["_Request[S, R]", int]


@dataclass
class BatchCounts:
    """What a batcher has done since its start.

    Attributes:
        sizes: How many batches had 1 sequence, 2, up to 4, up to 8, ...; the last: more than all.
        sequences: In all batches.
        tokens: In all batches, without padding.
        done: Sequences that were computed.
        seconds: That compute threads worked, each of them counted.
        failed: Sequences that could not be computed.
    """

    sizes: list[int] = field(default_factory=lambda: [0] * (len(BATCH_SIZES) + 1))
    sequences: int = 0
    tokens: int = 0
    done: int = 0
    seconds: float = 0.0
    failed: int = 0


class Batcher(Generic[S, R]):
    """Runs sequences in batches on compute threads.

    Args:
        run: Computes a batch: a result for each sequence, in order. Called in the compute threads, at the same time.
        cost: Tokens of a sequence.
        budget: Tokens of a batch; a single longer sequence is a batch too.
        threads: Number of compute threads.
        padded: Whether `run` pads to the longest sequence of the batch, so that padding counts against the budget.
        use_cores: Called in a compute thread, at its start with 1 and then whenever `run` is to use another number of
            cores there. None for a `run` that always uses one.
        is_exhaustion: Whether an error of `run` says that the batch needs more memory than there is.
        name: Prefix of the threads' names.

    Attributes:
        queue: Times how long requests wait for their first batch.
        counts: What has been done, for metrics.
    """

    def __init__(
        self,
        run: Callable[[list[S]], Sequence[R]],
        *,
        cost: Callable[[S], int] = len,  # type: ignore[assignment]  # the default is for sized sequences
        budget: int = 1024,
        threads: int = 1,
        padded: bool = False,
        use_cores: Callable[[int], None] | None = None,
        is_exhaustion: Callable[[BaseException], bool] = lambda error: isinstance(error, MemoryError),
        name: str = "encoder",
    ) -> None:
        self._run = run
        self._cost = cost
        self._budget = self._wanted_budget = budget
        self._good = 0  # batches computed since the budget was cut or raised
        self._padded = padded
        self._use_cores = use_cores
        self._team = 1 if use_cores is None else min(threads, _LARGEST_TEAM)
        self._is_exhaustion = is_exhaustion
        self.queue = QueueClock()
        self.counts = BatchCounts()
        self._changed = threading.Condition()
        self._interactive: list[_Request[S, R]] = []
        self._bulk: list[_Request[S, R]] = []
        self._serial = itertools.count()
        self._clock = 0  # tokens taken so far
        self._since_bulk = 0  # batches since bulk had one
        self._waiting = 0  # sequences in the queue
        self._waiting_cost = 0
        self._idle = 0  # threads without work
        self._closed = False
        self._threads = [
            threading.Thread(target=self._work, name=f"{name}-{number}", daemon=True) for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, sequences: Sequence[S], priority: Priority | None = None) -> Pending[R]:
        """Queue the sequences of one request.

        Args:
            sequences: What to compute.
            priority: What the request says of its priority; by its tokens if it says nothing.

        Returns:
            A future of their results. It raises `SequenceFailed` when one of them cannot be computed, and `Unavailable`
            when the batcher is closed.
        """
        future: Pending[R] = Pending()
        if not sequences:
            future.set_result([])
            return future
        costs = [self._cost(sequence) for sequence in sequences]
        order = sorted(range(len(sequences)), key=costs.__getitem__, reverse=True)
        total = sum(costs)
        with self._changed:
            if self._closed:
                raise Unavailable("the encoder is shutting down")
            request = _Request[S, R](
                due=self._clock + total,
                serial=next(self._serial),
                sequences=sequences,
                costs=costs,
                order=order,
                results=[None] * len(sequences),
                future=future,
                ticket=self.queue.enter(),
                unfinished=len(sequences),
            )
            heapq.heappush(self._interactive if self._is_interactive(total, priority) else self._bulk, request)
            self._waiting += len(sequences)
            self._waiting_cost += total
            self._changed.notify_all()
        return future

    @property
    def budget(self) -> int:
        """Tokens of a batch: what was asked for, or less where there was no memory for that."""
        return self._budget

    @property
    def threads(self) -> int:
        """Compute threads."""
        return len(self._threads)

    @property
    def waiting(self) -> int:
        """Sequences in the queue, those of callers that have gone included until their turn comes."""
        return self._waiting

    def close(self, timeout: float | None = 10) -> None:
        """Fail what is queued, finish what is being computed, and end the threads: `timeout` seconds for each."""
        with self._changed:
            self._closed = True
            left = [*self._interactive, *self._bulk]
            self._interactive.clear()
            self._bulk.clear()
            self._waiting = self._waiting_cost = 0
            self._changed.notify_all()
        for request in left:
            self.queue.leave(request.ticket)
            _fail(request.future, Unavailable("the encoder is shutting down"))
        for thread in self._threads:
            thread.join(timeout)

    def _is_interactive(self, tokens: int, priority: Priority | None) -> bool:
        if priority is None:
            return tokens * _INTERACTIVE_PART <= self._budget
        return priority == "interactive" and tokens <= self._budget

    # ---- in the compute threads ----

    def _work(self) -> None:
        cores = 1
        if self._use_cores is not None:
            self._use_cores(cores)
        while True:
            with self._changed:
                self._idle += 1
                while not (batch := self._take()) and not self._closed:
                    self._changed.wait()
                self._idle -= 1
                if not batch:
                    return
                wanted = self._team if self._is_alone(batch) else 1
            if self._use_cores is not None and wanted != cores:
                self._use_cores(wanted)
                cores = wanted
            began = time.monotonic()
            self._compute(batch)
            with self._changed:
                self.counts.seconds += time.monotonic() - began

    def _take(self) -> list[_Item[S, R]]:
        """The next batch; empty when there is nothing to do. Needs the lock."""
        for lane in self._lanes():
            batch = self._take_from(lane)
            if batch:
                self._since_bulk = 0 if lane is self._bulk else self._since_bulk + 1
                self.counts.sizes[bisect_left(BATCH_SIZES, len(batch))] += 1
                self.counts.sequences += len(batch)
                self.counts.tokens += sum(map(_cost, batch))
                return batch
        return []

    def _is_alone(self, batch: Sequence[_Item[S, R]]) -> bool:
        """Whether a batch is for a team: short, of one caller, and nothing else to be computed. Needs the lock."""
        if self._waiting or self._idle < len(self._threads) - 1:
            return False
        first = batch[0][0]
        return all(request is first for request, _ in batch) and sum(map(_cost, batch)) <= _TEAM_TOKENS

    def _lanes(self) -> tuple[list[_Request[S, R]], list[_Request[S, R]]]:
        if self._since_bulk >= _BULK_SHARE - 1:
            return self._bulk, self._interactive
        return self._interactive, self._bulk

    def _take_from(self, lane: list[_Request[S, R]]) -> list[_Item[S, R]]:
        # Idle threads share what is there: one request alone is then computed by all of them.
        share = max(_SMALLEST_SHARE, -(-self._waiting_cost // max(self._idle, 1)))
        budget = min(self._budget, share)
        batch: list[_Item[S, R]] = []
        spent = longest = 0
        while lane:
            request = lane[0]
            if request.future.done():  # its caller has gone, or a sequence of it failed
                self._forget(heapq.heappop(lane))
                continue
            index = request.order[request.taken]
            cost = request.costs[index]
            longest = max(longest, cost)
            total = longest * (len(batch) + 1) if self._padded else spent + cost
            if batch and total > budget:
                break
            spent = total
            request.future.mark_started()
            self.queue.start(request.ticket)
            batch.append((request, index))
            request.taken += 1
            self._waiting -= 1
            self._waiting_cost -= cost
            self._clock += cost
            if request.taken == len(request.order):
                heapq.heappop(lane)
        return batch

    def _forget(self, request: _Request[S, R]) -> None:
        self.queue.leave(request.ticket)
        rest = request.order[request.taken :]
        self._waiting -= len(rest)
        self._waiting_cost -= sum(request.costs[index] for index in rest)

    def _compute(self, batch: list[_Item[S, R]]) -> None:
        batch = [item for item in batch if not item[0].future.done()]
        if not batch:
            return
        results = self._try(batch)
        if results is None:
            if len(batch) > 1:
                middle = len(batch) // 2
                self._compute(batch[:middle])
                self._compute(batch[middle:])
            return
        finished: list[_Request[S, R]] = []
        with self._changed:
            self.counts.done += len(batch)
            if self._budget < self._wanted_budget:
                self._grow()
            for (request, index), result in zip(batch, results, strict=True):
                request.results[index] = result
                request.unfinished -= 1
                if not request.unfinished:
                    finished.append(request)
        for request in finished:
            request.future.mark_finished()
            try:
                request.future.set_result(request.results)  # type: ignore[arg-type]  # all are filled
            except InvalidStateError:
                _log.debug("a request was cancelled while its last sequence was computed")

    def _try(self, batch: list[_Item[S, R]]) -> Sequence[R] | None:
        """The results, or None after a failure: that of a single sequence is then told to its request."""
        try:
            results = self._run([request.sequences[index] for request, index in batch])
            if len(results) != len(batch):
                raise AssertionError(f"{len(results)} results for {len(batch)} sequences: this is a bug of the encoder")
            return results
        except Exception as error:  # whatever a model raises: its request gets it, and its neighbours do not
            if len(batch) == 1:
                request, index = batch[0]
                with self._changed:
                    self.counts.failed += 1
                _log.error("a sequence of %d tokens cannot be computed", request.costs[index], exc_info=error)
                failure = SequenceFailed(index)
                failure.__cause__ = error
                _fail(request.future, failure)
            elif self._is_exhaustion(error):
                self._shrink(batch)
        return None

    def _grow(self) -> None:
        """Make batches larger again, after enough of them were computed. Needs the lock."""
        self._good += 1
        if self._good >= _TRUSTED_AFTER:
            self._good = 0
            self._budget = min(self._wanted_budget, 2 * self._budget)
            _log.info("batches have up to %d tokens again", self._budget)

    def _shrink(self, batch: list[_Item[S, R]]) -> None:
        """Make batches half of one for which there was no memory."""
        tokens = [request.costs[index] for request, index in batch]
        spent = max(tokens) * len(tokens) if self._padded else sum(tokens)
        with self._changed:
            if spent // 2 < self._budget:
                self._budget = max(1, spent // 2)
                self._good = 0
                _log.warning("no memory for a batch of %d tokens; batches have at most %d now", spent, self._budget)


def _cost(item: _Item[S, R]) -> int:
    request, index = item
    return request.costs[index]


def _fail(future: Future[Any], error: Exception) -> None:
    try:
        future.set_exception(error)
    except InvalidStateError:
        _log.debug("a request was over before it failed")
