"""Whether an executor still works: a canary goes the way of a request, and what comes back is judged.

    Canary --every period--> executor.canary() --queue, device--> cosine with the vector of the start
                                  |
                 no answer in time, an error, another vector: twice in a row --> NOT_SERVING, with the reason
                                  |
                          an answer that is right again --> SERVING

A process can answer health checks while its device hangs or its weights are spoilt; this finds out. While requests
succeed a canary is only sent every so often: they show that the queue moves, though not that vectors are right. One
that waits while requests succeed is not late: the executor is busy.

What an executor offers: `async def canary(self) -> float | None`, the cosine of what it computed with what it computed
first, or None where there is nothing to compare and coming back is all that counts.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Any

from flowdex.errors import FlowdexError, Overloaded

if TYPE_CHECKING:
    from prometheus_client.core import Metric

__all__ = ["Canary"]

log = logging.getLogger(__name__)

LEAST_COSINE = 0.99
"""Of the right vector: other neighbours in a batch, and lower precisions, change the last digits."""

_LEAST_PATIENCE = 1.0  # seconds
_MOST_SKIPPED = 5
_AGAIN_AFTER = 1.0  # seconds, at most the period
_FAILURES = 2  # in a row; one may have been the request's bad luck


class Canary:
    """Sends canaries through one executor.

    Args:
        ask: Sends one; see the module's docstring for its answer.
        period: Seconds between two of them; one is late after as many, and at least a second.
        served: Tells how many requests have succeeded so far.
        changed: Called with what is wrong, and with "" once that is over.
    """

    def __init__(
        self,
        ask: Callable[[], Awaitable[float | None]],
        period: float,
        *,
        served: Callable[[], int],
        changed: Callable[[str], None],
    ) -> None:
        self._ask = ask
        self._period = period
        self._patience = max(period, _LEAST_PATIENCE)
        self._served = served
        self._changed = changed
        self._seen = 0
        self._in_a_row = 0
        self._failures = 0
        self._succeeded = time.time()
        self._cosine: float | None = None
        self._task: asyncio.Task[None] | None = None
        self.problem = ""

    async def start(self) -> None:
        """Send the first one, whose vector is the one to compare with, and go on in the background.

        Raises:
            Exception: Whatever the executor raises at the first one: it does not work.
        """
        self._cosine = await self._ask()
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Send no more."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def status(self) -> dict[str, Any]:
        """JSON values: `ok`, `problem`, `cosine` of the last one, `age_s` of the last that succeeded."""
        return {
            "ok": not self.problem,
            "problem": self.problem or None,
            "cosine": None if self._cosine is None else round(self._cosine, 6),
            "age_s": round(time.time() - self._succeeded, 1),
        }

    def metrics(self) -> Iterator[Metric]:
        """For Prometheus."""
        from flowdex_orchestrator.observability.families import counter, gauge

        yield gauge("flowdex_canary_ok", "Whether the last canaries came back, and right.", not self.problem)
        yield counter("flowdex_canary_failures_total", "Canaries that were late, wrong or an error.", self._failures)
        yield gauge(
            "flowdex_canary_last_success_timestamp_seconds", "When the last one came back right.", self._succeeded
        )
        if self._cosine is not None:
            yield gauge(
                "flowdex_canary_cosine_ratio", "Cosine of the last one's vector with that of the start.", self._cosine
            )

    async def _run(self) -> None:
        skipped = 0
        while True:
            again = self._in_a_row and not self.problem
            await asyncio.sleep(min(self._period, _AGAIN_AFTER) if again else self._period)
            if not self._in_a_row and self._has_served() and skipped < _MOST_SKIPPED:
                skipped += 1
                continue
            skipped = 0
            await self._send()

    async def _send(self) -> None:
        asked = asyncio.ensure_future(self._ask())
        try:
            while not (await asyncio.wait({asked}, timeout=self._patience))[0]:
                if not self._has_served():  # nothing else comes back either
                    self._in_a_row = _FAILURES
                    self._fail(f"its canary has not come back within {self._patience:g} s")
            self._judge(asked.result())
        except Overloaded:
            log.debug("the canary was refused: the executor is busy")
        except Exception as error:  # whatever the executor raises, told without what may be a caller's words
            name = error.name if isinstance(error, FlowdexError) else type(error).__name__
            log.debug("the canary failed", exc_info=error)
            self._fail(f"its canary ends with {name}")
        finally:
            asked.cancel()
            self._seen = self._served()  # it was work itself

    def _judge(self, cosine: float | None) -> None:
        self._cosine = cosine
        if cosine is not None and not cosine >= LEAST_COSINE:  # NaN is wrong, too
            self._fail(f"its canary has another vector than at the start (cosine {cosine:.3f})")
            return
        self._in_a_row, self._succeeded = 0, time.time()
        if self.problem:
            self.problem = ""
            log.warning("the canary is right again")
            self._changed("")

    def _fail(self, problem: str) -> None:
        self._failures += 1
        self._in_a_row += 1
        if self._in_a_row >= _FAILURES and problem != self.problem:
            if not self.problem:
                log.error("takes no requests: %s", problem)
            self.problem = problem
            self._changed(problem)

    def _has_served(self) -> bool:
        """Whether requests have succeeded since this was asked last."""
        seen, self._seen = self._seen, self._served()
        return self._seen > seen
