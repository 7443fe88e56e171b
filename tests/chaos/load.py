"""Load on a flow, each answer of which is checked, and a ledger of what was acknowledged.

    load.running(): encoders, searchers over gRPC and HTTP, a writer --> Tally: sent, failed by class, wrong, late, ...
    load.verify():  the whole index against the ledger               --> Tally: lost, duplicated

No client tries anything again: what fails is counted. Only the writer sends a batch again until it is acknowledged, as
a person who indexes would; so that in the end every document is known to be stored, in its latest version.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import numpy as np

from chaos.flow import ChaosFlow, known_vectors
from flowdex import AsyncClient, Document
from flowdex.errors import FlowdexError, NotFound

__all__ = ["Load", "Tally", "seconds"]

logger = logging.getLogger(__name__)

DEADLINE = 10.0  # seconds of every request
GRACE = 1.5  # seconds after that in which the error must be there
BATCH = 8
KINDS = ("encode", "search", "index")
_PAUSE = 0.02  # seconds of a client after each request: two cores are to be left for processes that start again


@dataclass
class Tally:
    """What became of requests.

    Attributes:
        sent: How many.
        failed: By the class of the error.
        wrong: Answers that are not right.
        untyped: Errors that are no `FlowdexError`, in words.
        late: Requests that ended neither with an answer nor with an error until `GRACE` after their deadline.
        lost: Acknowledged documents that are not there, or not in their latest version.
        duplicated: Documents that are there more than once.
        recoveries: Seconds from a fault until all is as before, one for each.
        gap: The longest time in seconds without an answer to encode or search.
        said: Messages of failures, the latest of each class.
    """

    sent: int = 0
    failed: dict[str, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    untyped: list[str] = field(default_factory=list)
    late: int = 0
    lost: int = 0
    duplicated: int = 0
    recoveries: list[float] = field(default_factory=list)
    gap: float = 0.0
    said: dict[str, str] = field(default_factory=dict)

    def count_failure(self, name: str) -> None:
        """One more request that failed with this error."""
        self.failed[name] = self.failed.get(name, 0) + 1

    def add(self, other: Tally) -> None:
        """Count what another run has counted."""
        self.sent += other.sent
        for name, count in other.failed.items():
            self.failed[name] = self.failed.get(name, 0) + count
        self.wrong += other.wrong
        self.untyped += other.untyped
        self.late += other.late
        self.lost += other.lost
        self.duplicated += other.duplicated
        self.recoveries += other.recoveries
        self.gap = max(self.gap, other.gap)
        self.said |= other.said

    def check(self) -> None:
        """Raise unless every request was answered rightly or failed with a typed error in time, and nothing is lost."""
        assert not self.wrong, self.wrong[:5]
        assert not self.untyped, self.untyped[:5]
        assert (self.late, self.lost, self.duplicated) == (0, 0, 0), self


@dataclass
class _Entry:
    """What is known of one document: its acknowledged version, and the one on its way."""

    acknowledged: int = 0
    sent: int = 0


class Load:
    """Clients of one flow.

    Args:
        flow: The flow.
        tally: Counts.
        expect: Texts -> vectors, as `encode` must answer them.
        index: Whether to write as well.
        clients: How many encode and how many search, half of each over gRPC and half over HTTP.
        text_size: Characters of a document.
    """

    def __init__(
        self,
        flow: ChaosFlow,
        tally: Tally,
        *,
        expect: Callable[[Sequence[str]], np.ndarray] = known_vectors,
        index: bool = True,
        clients: int = 2,
        text_size: int = 0,
    ) -> None:
        self.flow = flow
        self.tally = tally
        self.ledger: dict[int, _Entry] = {}
        self.succeeded = dict.fromkeys(KINDS, 0.0)  # when one that was answered rightly was last begun
        self.failed_at = 0.0  # when a request last failed
        self.refused: list[FlowdexError] = []  # the writer's
        self._expect = expect
        self._index = index
        self._clients = clients
        self._text_size = text_size
        self._chance = random.Random(0)
        self._stopping = False
        self._answered = time.monotonic()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Send requests as long as this lasts; returns once each kind has succeeded."""
        tasks = [asyncio.create_task(work(url)) for work in (self._encodes, self._searches) for url in self._urls()]
        if self._index:
            tasks.append(asyncio.create_task(self._writes()))
        try:
            await self.all_well(time.monotonic(), tasks)
            yield
        finally:
            self._stopping = True
            await asyncio.gather(*tasks)

    def _urls(self) -> list[str]:
        running = self.flow.running
        return [(running.grpc_url, running.http_url)[number % 2] for number in range(self._clients)]

    async def all_well(self, since: float, tasks: Sequence[asyncio.Task[None]] = (), seconds: float = 90.0) -> None:
        """Wait until a request of every kind that was begun after `since` was answered rightly.

        Raises:
            AssertionError: It was not in time.
        """
        kinds = KINDS if self._index else KINDS[:2]
        end = time.monotonic() + seconds
        while not all(self.succeeded[kind] > since for kind in kinds):
            for task in tasks:
                if task.done():
                    task.result()
            assert time.monotonic() < end, f"not within {seconds:g} s: {self.succeeded}, {self.tally}"
            await asyncio.sleep(0.02)

    async def recovered(self, fault: float, *, replaced: Awaitable[None] | None = None) -> None:
        """Wait until all is as before a fault at that time (`time.monotonic()`), and note how long it took."""
        if replaced is not None:
            await replaced
        await self.all_well(max(fault, time.monotonic() if replaced is not None else fault))
        self.tally.recoveries.append(time.monotonic() - fault)
        logger.info("recovered after %.1f s", self.tally.recoveries[-1])

    # ---- the clients ----

    async def _encodes(self, url: str) -> None:
        async with AsyncClient(url, retries=0) as client:
            while not self._stopping:
                texts = [f"text {self._chance.randrange(10_000)} of some length" for _ in range(4)]
                expected = self._expect(texts)

                async def encode(texts: list[str] = texts, expected: np.ndarray = expected) -> str:
                    vectors = await client.encode(texts, timeout=DEADLINE)
                    close = vectors.shape == expected.shape and np.allclose(vectors, expected, atol=1e-4)
                    return "" if close else f"encode: other vectors of {texts}"

                await self._try("encode", encode)

    async def _searches(self, url: str) -> None:
        async with AsyncClient(url, retries=0) as client:
            while not self._stopping:
                known = [number for number, entry in self.ledger.items() if entry.acknowledged]
                if self._index and not known:
                    await asyncio.sleep(_PAUSE)
                    continue
                number = self._chance.choice(known) if known else 0

                async def search(number: int = number) -> str:
                    least = self.ledger[number].acknowledged if number in self.ledger else 0
                    result = await client.search(_word(number), limit=3, timeout=DEADLINE)
                    if not self._index:
                        return ""
                    if not result.hits or result.hits[0].id != f"d{number}":
                        return f"search: d{number} is not found first but {[hit.id for hit in result.hits]}"
                    found, most = _version_in(result.hits[0].text), self.ledger[number].sent
                    return (
                        "" if least <= found <= most else f"search: version {found} of d{number}, not {least}..{most}"
                    )

                await self._try("search", search)

    async def _writes(self) -> None:
        """New documents, and now and then the next version of old ones."""
        async with AsyncClient(self.flow.running.grpc_url, retries=0) as client:
            while not self._stopping:
                numbers = range(len(self.ledger), len(self.ledger) + BATCH)
                if len(self.ledger) > BATCH and self._chance.random() < 0.5:
                    numbers = self._chance.sample(range(len(self.ledger)), BATCH)  # type: ignore[assignment]
                for number in numbers:
                    self.ledger.setdefault(number, _Entry()).sent += 1
                batch = [_document(number, self.ledger[number].sent, self._text_size) for number in numbers]

                async def index(batch: list[Document] = batch) -> str:
                    stored = (await client.index(batch, timeout=DEADLINE)).documents
                    return "" if stored == len(batch) else f"index: {stored} of {len(batch)}"

                end = time.monotonic() + 120
                while not await self._try("index", index):
                    assert time.monotonic() < end, f"a batch could not be written for 120 s: {self.tally.said}"
                for number in numbers:
                    self.ledger[number].acknowledged = self.ledger[number].sent

    async def _try(self, kind: str, call: Callable[[], Awaitable[str]]) -> bool:
        """One request: whether it was answered."""
        tally, began = self.tally, time.monotonic()
        tally.sent += 1
        try:
            wrong = await asyncio.wait_for(call(), DEADLINE + GRACE)
        except asyncio.TimeoutError as error:
            if isinstance(error, FlowdexError):  # DeadlineExceeded is a TimeoutError too
                self._failed(error)
            else:
                tally.late += 1
        except FlowdexError as error:
            self._failed(error)
            if kind == "index":
                self.refused.append(error)
        except Exception as error:  # exactly what must not come
            tally.untyped.append(f"{kind}: {error!r}")
        else:
            if wrong:
                tally.wrong.append(wrong)
            self.succeeded[kind] = max(self.succeeded[kind], began)
            if kind != "index":
                tally.gap = max(tally.gap, time.monotonic() - self._answered)
                self._answered = time.monotonic()
            await asyncio.sleep(_PAUSE)
            return True
        await asyncio.sleep(5 * _PAUSE)
        return False

    def _failed(self, error: FlowdexError) -> None:
        self.failed_at = time.monotonic()
        self.tally.count_failure(error.name)
        self.tally.said[error.name] = error.message
        logger.info("%s: %s", error.name, error.message)

    # ---- afterwards ----

    async def verify(self) -> None:
        """Compare the whole index with what was acknowledged."""
        async with AsyncClient(self.flow.running.grpc_url, retries=10) as client:
            found: Counter[str] = Counter()
            versions: dict[str, int] = {}
            try:
                async for document in client.scroll():
                    name = str(document.id)
                    found[name] += 1
                    if name[1:].isdigit():  # the others are the fault's own
                        versions[name] = _version_in(document.text)
            except NotFound:
                assert not self.ledger
            acknowledged = {f"d{number}": entry for number, entry in self.ledger.items() if entry.acknowledged}
            for name, entry in acknowledged.items():
                if not entry.acknowledged <= versions.get(name, 0) <= entry.sent:
                    self.tally.lost += 1
                    self.tally.said["lost"] = f"{name}: version {versions.get(name)} of {entry}"
            self.tally.duplicated += sum(count - 1 for count in found.values())
            assert await client.count() == len(found), "what is counted is what can be read"


def _word(number: int) -> str:
    """A word that one document alone has."""
    return f"planted{number}x{number * 7919 % 10007}"


def _document(number: int, version: int, size: int) -> Document:
    text = f"The word {_word(number)} stands in version {version} of this document."
    return Document(text + " It is long." * (size // 12), id=f"d{number}")


def _version_in(text: str) -> int:
    return int(text.partition(" in version ")[2].split()[0])


async def seconds(awaitable: Awaitable[object]) -> float:
    """How long something takes."""
    began = time.monotonic()
    await awaitable
    return time.monotonic() - began
