"""The batcher: what is computed together, in which order, and whose failure is whose."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowdex.errors import Unavailable
from flowdex_executors.encoder.batching import Batcher, SequenceFailed

WAIT = 10


class Recorder:
    """A backend that records its batches, and can be held: it computes nothing until released."""

    def __init__(self, poison: str | None = None) -> None:
        self.batches: list[list[str]] = []
        self.poison = poison
        self.gate = threading.Event()
        self.gate.set()
        self.started = threading.Semaphore(0)
        self.lock = threading.Lock()

    def __call__(self, batch: list[str]) -> list[int]:
        with self.lock:
            self.batches.append(batch)
        self.started.release()
        assert self.gate.wait(WAIT)
        if self.poison is not None and any(self.poison in text for text in batch):
            raise RuntimeError("poisoned")
        return [len(text) for text in batch]

    def hold(self, batcher: Batcher[str, int]) -> Any:
        """Occupy the one compute thread with a request of its own until `gate` is set."""
        self.gate.clear()
        future = batcher.submit(["held"])
        assert self.started.acquire(timeout=WAIT)
        return future


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def make_batcher(recorder: Recorder) -> Any:
    made: list[Batcher[str, int]] = []

    def make(run: Callable[[list[str]], Sequence[int]] = recorder, **options: Any) -> Batcher[str, int]:
        made.append(Batcher(run, **{"budget": 16, **options}))
        return made[-1]

    yield make
    recorder.gate.set()
    for batcher in made:
        batcher.close()


def test_results_in_order_of_the_request(make_batcher: Any) -> None:
    texts = ["aaa", "a", "aaaaa", "aa", "a" * 40]
    assert make_batcher().submit(texts).result(WAIT) == [3, 1, 5, 2, 40]


def test_empty_request(make_batcher: Any) -> None:
    assert make_batcher().submit([]).result(WAIT) == []


@settings(deadline=None, max_examples=40)
@given(
    requests=st.lists(st.lists(st.text("ab", min_size=1, max_size=30), max_size=12), max_size=8),
    threads=st.integers(1, 3),
    padded=st.booleans(),
)
def test_every_request_gets_its_own_results_within_the_budget(
    requests: list[list[str]], threads: int, padded: bool
) -> None:
    recorder = Recorder()
    batcher = Batcher(recorder, budget=32, threads=threads, padded=padded)
    futures = [batcher.submit(texts) for texts in requests]
    assert [future.result(WAIT) for future in futures] == [[len(text) for text in texts] for texts in requests]
    assert batcher.waiting == 0
    batcher.close()
    for batch in recorder.batches:
        spent = max(map(len, batch)) * len(batch) if padded else sum(map(len, batch))
        assert len(batch) == 1 or spent <= 32


def test_a_batch_is_made_of_several_requests(make_batcher: Any, recorder: Recorder) -> None:
    batcher = make_batcher()
    futures = [recorder.hold(batcher), *(batcher.submit([text]) for text in ("a", "bb", "cc"))]
    recorder.gate.set()
    for future in futures:
        future.result(WAIT)
    assert recorder.batches == [["held"], ["a", "bb", "cc"]]


def test_interactive_overtakes_bulk(make_batcher: Any, recorder: Recorder) -> None:
    batcher = make_batcher()
    recorder.hold(batcher)
    bulk = batcher.submit(["b" * 8] * 10)
    query = batcher.submit(["q"])
    recorder.gate.set()
    query.result(WAIT)
    bulk.result(WAIT)
    assert recorder.batches[1] == ["q"]


def test_what_a_request_says_of_its_priority_counts_within_bounds(make_batcher: Any, recorder: Recorder) -> None:
    batcher = make_batcher()
    held = recorder.hold(batcher)
    too_large = batcher.submit(["t" * 17], "interactive")
    modest, urgent = batcher.submit(["m"], "bulk"), batcher.submit(["u" * 16], "interactive")
    short = batcher.submit(["s"])
    recorder.gate.set()
    for future in (held, too_large, modest, urgent, short):
        future.result(WAIT)
    assert recorder.batches[1:] == [["s"], ["u" * 16], ["m"], ["t" * 17]]


def test_interactive_overtakes_bulk_that_has_begun(make_batcher: Any, recorder: Recorder) -> None:
    batcher = make_batcher()
    recorder.gate.clear()
    bulk = batcher.submit(["b" * 8] * 10)
    assert recorder.started.acquire(timeout=WAIT)
    query = batcher.submit(["q"])
    recorder.gate.set()
    query.result(WAIT)
    bulk.result(WAIT)
    assert recorder.batches[1] == ["q"]


def test_bulk_is_not_starved(make_batcher: Any, recorder: Recorder) -> None:
    batcher = make_batcher()
    recorder.hold(batcher)
    bulk = batcher.submit(["b" * 16] * 3)
    queries = [batcher.submit(["q" * 4]) for _ in range(100)]
    recorder.gate.set()
    bulk.result(WAIT)
    for query in queries:
        query.result(WAIT)
    last_bulk = max(index for index, batch in enumerate(recorder.batches) if batch[0].startswith("b"))
    assert last_bulk <= 16, "every fifth batch is bulk's"
    assert recorder.batches[1][0].startswith("q")


def test_a_small_bulk_request_passes_a_huge_one_and_equals_keep_their_order(
    make_batcher: Any, recorder: Recorder
) -> None:
    batcher = make_batcher()
    recorder.hold(batcher)
    futures = [batcher.submit([name * 16] * count) for name, count in (("h", 20), ("x", 2), ("y", 2), ("z", 2))]
    recorder.gate.set()
    for future in futures:
        future.result(WAIT)
    assert "".join(batch[0][0] for batch in recorder.batches[1:8]) == "xxyyzzh"


def test_long_sequences_first_so_that_batches_are_alike(make_batcher: Any, recorder: Recorder) -> None:
    make_batcher(padded=True).submit(["a", "a" * 8, "aa", "a" * 8, "a", "aa"]).result(WAIT)
    assert [sorted({len(text) for text in batch}) for batch in recorder.batches] == [[8], [1, 2]]


def test_cancelled_requests_are_dropped(make_batcher: Any, recorder: Recorder) -> None:
    batcher = make_batcher()
    recorder.hold(batcher)
    gone = batcher.submit(["gone" * 4] * 5)
    stays = batcher.submit(["stay" * 4] * 2)
    assert gone.cancel()
    recorder.gate.set()
    assert stays.result(WAIT) == [16, 16]
    with pytest.raises(CancelledError):
        gone.result(WAIT)
    assert batcher.waiting == 0
    assert not any("gone" in text for batch in recorder.batches for text in batch)


async def test_a_cancelled_task_drops_its_request(make_batcher: Any, recorder: Recorder) -> None:
    batcher = make_batcher()
    recorder.hold(batcher)
    task = asyncio.create_task(_wrapped(batcher, ["gone" * 4] * 50))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    recorder.gate.set()
    assert await _wrapped(batcher, ["stay"]) == [4]
    assert sum("gone" in text for batch in recorder.batches for text in batch) == 0


async def _wrapped(batcher: Batcher[str, int], texts: list[str]) -> list[int]:
    return await asyncio.wrap_future(batcher.submit(texts))


@settings(deadline=None, max_examples=40)
@given(st.lists(st.lists(st.sampled_from(["ok", "fine", "poison"]), min_size=1, max_size=6), max_size=8))
def test_a_failing_sequence_fails_its_own_request_only(requests: list[list[str]]) -> None:
    recorder = Recorder(poison="poison")
    batcher = Batcher(recorder, budget=64)
    held = recorder.hold(batcher)
    futures = [batcher.submit(texts) for texts in requests]
    recorder.gate.set()
    held.result(WAIT)
    for texts, future in zip(requests, futures, strict=True):
        if "poison" in texts:
            with pytest.raises(SequenceFailed) as caught:
                future.result(WAIT)
            assert texts[caught.value.index] == "poison"
            assert isinstance(caught.value.__cause__, RuntimeError)
        else:
            assert future.result(WAIT) == [len(text) for text in texts]
    batcher.close()


def test_bisection_computes_the_neighbours_in_few_batches(make_batcher: Any) -> None:
    recorder = Recorder(poison="!")
    batcher = make_batcher(recorder, budget=64)
    recorder.hold(batcher)
    neighbours = [batcher.submit(["a" * 2]) for _ in range(15)]
    poisoned = batcher.submit(["!"])
    recorder.gate.set()
    assert [future.result(WAIT) for future in neighbours] == [[2]] * 15
    with pytest.raises(SequenceFailed):
        poisoned.result(WAIT)
    assert len(recorder.batches) <= 1 + 1 + 2 * 4, "halving 16 needs at most 8 more batches"


def test_too_few_results_are_an_error_and_not_a_shift(make_batcher: Any) -> None:
    with pytest.raises(SequenceFailed):
        make_batcher(lambda batch: [1] * (len(batch) - 1)).submit(["a", "b"]).result(WAIT)


def test_idle_threads_share_one_request(make_batcher: Any, recorder: Recorder) -> None:
    batcher = make_batcher(budget=4096, threads=2)
    time.sleep(0.05)  # let both threads reach the queue
    recorder.gate.clear()
    future = batcher.submit(["a" * 100] * 8)
    assert recorder.started.acquire(timeout=WAIT)
    assert recorder.started.acquire(timeout=WAIT), "the second thread got no share"
    recorder.gate.set()
    future.result(WAIT)
    assert sorted(len(batch) for batch in recorder.batches) == [4, 4]


def idle(batcher: Any) -> None:
    """Wait until all threads are."""
    deadline = time.monotonic() + WAIT
    while batcher._idle < len(batcher._threads):
        assert time.monotonic() < deadline
        time.sleep(0.001)


def submit_one_by_one(batcher: Any, recorder: Recorder, texts: Sequence[str]) -> list[Any]:
    """Submit each when the one before it is being computed."""
    futures = []
    for text in texts:
        futures.append(batcher.submit([text]))
        assert recorder.started.acquire(timeout=WAIT), f"no thread took {text[:9]}"
    return futures


def finish(recorder: Recorder, futures: Sequence[Any]) -> None:
    recorder.gate.set()
    for future in futures:
        future.result(WAIT)


@pytest.fixture
def make_telling_batcher(make_batcher: Any) -> Any:
    """A batcher of idle threads, and what `use_cores` has been called with since, in which thread."""

    def make(threads: int) -> tuple[Any, list[tuple[str, int]]]:
        told: list[tuple[str, int]] = []
        batcher = make_batcher(
            budget=1024,
            threads=threads,
            use_cores=lambda cores: told.append((threading.current_thread().name, cores)),
        )
        idle(batcher)
        assert sorted(told) == sorted((f"encoder-{number}", 1) for number in range(threads))
        told.clear()
        return batcher, told

    return make


def test_a_short_text_alone_is_computed_by_a_team(make_telling_batcher: Any) -> None:
    batcher, told = make_telling_batcher(3)
    batcher.submit(["a"]).result(WAIT)
    assert [cores for _, cores in told] == [3]


def test_in_company_each_batch_has_one_core(make_telling_batcher: Any, recorder: Recorder) -> None:
    batcher, told = make_telling_batcher(2)
    recorder.gate.clear()
    finish(recorder, submit_one_by_one(batcher, recorder, ["a" * 300, "b"]))  # the first is too long for a team
    assert told == []


def test_short_texts_of_several_callers_are_not_for_a_team(make_telling_batcher: Any, recorder: Recorder) -> None:
    batcher, told = make_telling_batcher(2)
    recorder.gate.clear()
    running = submit_one_by_one(batcher, recorder, ["a" * 300, "a" * 300])
    waiting = [batcher.submit(["b"]), batcher.submit(["c"])]
    finish(recorder, [*running, *waiting])
    assert recorder.batches[2:] == [["b", "c"]]
    assert told == []


def test_a_team_is_over_when_there_is_company(make_telling_batcher: Any, recorder: Recorder) -> None:
    batcher, told = make_telling_batcher(2)
    batcher.submit(["a"]).result(WAIT)
    ((thread, _),) = told
    idle(batcher)
    recorder.started = threading.Semaphore(0)
    recorder.gate.clear()
    finish(recorder, submit_one_by_one(batcher, recorder, ["a" * 300] * 2))  # one a thread
    assert told == [(thread, 2), (thread, 1)]


def test_a_team_has_at_most_four_threads(make_telling_batcher: Any) -> None:
    batcher, told = make_telling_batcher(16)
    batcher.submit(["a"]).result(WAIT)
    assert [cores for _, cores in told] == [4]


def test_close_fails_what_is_queued_and_ends_the_threads(make_batcher: Any, recorder: Recorder) -> None:
    batcher = make_batcher()
    running = recorder.hold(batcher)
    queued = batcher.submit(["later" * 10])
    closing = threading.Thread(target=batcher.close)
    closing.start()
    with pytest.raises(Unavailable):
        queued.result(WAIT)
    recorder.gate.set()
    assert running.result(WAIT) == [4]
    closing.join(WAIT)
    assert not any(thread.is_alive() for thread in batcher._threads)
    with pytest.raises(Unavailable):
        batcher.submit(["a"])


def test_how_long_a_request_waited_and_was_computed(make_batcher: Any, recorder: Recorder) -> None:
    batcher = make_batcher()
    held = recorder.hold(batcher)
    waiting = batcher.submit(["a"])
    time.sleep(0.1)
    assert waiting.queue_ms >= 100 and waiting.compute_ms == 0
    recorder.gate.set()
    held.result(WAIT)
    waiting.result(WAIT)
    assert held.queue_ms < 100 <= held.compute_ms
    assert waiting.queue_ms >= 100 > waiting.compute_ms
    before = (waiting.queue_ms, waiting.compute_ms)
    time.sleep(0.02)
    assert (waiting.queue_ms, waiting.compute_ms) == before, "the clock has stopped"


@pytest.mark.parametrize("padded", [False, True])
def test_too_little_memory_splits_the_batch_and_makes_later_ones_smaller(padded: bool) -> None:
    sizes: list[int] = []

    def small(batch: list[str]) -> list[int]:
        sizes.append(sum(map(len, batch)))
        if sizes[-1] > 10:
            raise MemoryError
        return [len(text) for text in batch]

    batcher = Batcher(small, budget=64, padded=padded)
    assert batcher.submit(["a" * 2] * 32).result(WAIT) == [2] * 32
    assert batcher.budget <= 16
    sizes.clear()
    assert batcher.submit(["a" * 2] * 32).result(WAIT) == [2] * 32
    assert sum(size > 10 for size in sizes) <= 1
    assert batcher.budget <= 10
    with pytest.raises(SequenceFailed) as caught:
        batcher.submit(["a", "a" * 11]).result(WAIT)
    assert caught.value.index == 1 and isinstance(caught.value.__cause__, MemoryError)
    assert batcher.submit(["a"]).result(WAIT) == [1]
    batcher.close()


def test_batches_grow_again_after_a_while_without_such_a_failure(make_batcher: Any) -> None:
    short = threading.Event()

    def run(batch: list[str]) -> list[int]:
        if short.is_set() and len(batch) > 1:
            raise MemoryError
        return [len(text) for text in batch]

    batcher = make_batcher(run, budget=64)
    short.set()
    assert batcher.submit(["x" * 8] * 8).result(WAIT) == [8] * 8
    assert batcher.budget == 8
    short.clear()
    budgets = []
    for _ in range(350):
        batcher.submit(["x"]).result(WAIT)
        budgets.append(batcher.budget)
    assert sorted(set(budgets)) == [8, 16, 32, 64]
    assert budgets == sorted(budgets)
    assert 90 <= budgets.index(16) <= 100, "eight or nine had been computed one by one before"
    assert (budgets.index(32) - budgets.index(16), budgets.index(64) - budgets.index(32)) == (100, 100)


def test_other_failures_leave_the_budget_as_it_is(make_batcher: Any) -> None:
    batcher = make_batcher(Recorder(poison="!"))
    with pytest.raises(SequenceFailed):
        batcher.submit(["a", "!"]).result(WAIT)
    assert batcher.budget == 16
