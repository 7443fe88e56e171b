"""A recorded contract over HTTP: finds out whether a server offers it, and runs its cases, one request at a time.

RecordedFile --discover--> variables --probe--> Absent | offered --each step of a case--> answer --> problems
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from flowdex.conformance.model import Absent, Check, Contract, Problem, Server, shown
from flowdex.conformance.paths import NoSuchPlace, look_up
from flowdex.conformance.patterns import mismatches
from flowdex.conformance.recorded import RecordedCase, RecordedFile, Step, Unfit, fill
from flowdex.conformance.relations import Broken, holds
from flowdex.errors import Unauthenticated, Unavailable

if TYPE_CHECKING:
    import httpx

    from flowdex.transport.target import Target

__all__ = ["RecordedContract"]

_LARGEST = 64 << 20  # bytes of an answer that are read
_MOST = 5  # problems that are told of one step: a thousand wrong numbers are one mistake
_SHOWN = 100  # characters of an answer
_NOT_JSON = object()


@dataclass(frozen=True)
class _Answer:
    status: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def json(self) -> Any:
        try:
            return json.loads(self.content)
        except ValueError:
            return _NOT_JSON

    def __str__(self) -> str:
        text = " ".join(self.content[:400].decode(errors="replace").split())
        return f"{self.status} {text if len(text) <= _SHOWN else text[: _SHOWN - 4] + ' ...'}".rstrip()


class RecordedContract(Contract):
    """A contract that is data.

    Args:
        file: The data.
    """

    def __init__(self, file: RecordedFile) -> None:
        self.name = file.contract
        self.title = file.title
        self.probes = len(file.discover) + (file.probe is not None)
        self._file = file

    @property
    def cases(self) -> Sequence[RecordedCase]:
        """In the order of the file."""
        return self._file.cases

    @contextmanager
    def session(self, server: Server) -> Iterator[Check]:
        """See `Contract`."""
        import httpx

        from flowdex.transport.http import client_context

        target = server.http
        if target is None:
            raise Absent("needs an address with http://")
        with httpx.Client(
            base_url=str(target),
            headers=dict(target.headers),
            timeout=server.timeout,
            trust_env=not target.loopback,
            # To read the system's certificates takes longer than many a case.
            verify=client_context(target) or target.secure,
        ) as client:
            session = _Session(client, target, server)
            session.discover(self._file)
            yield session.run


class _Session:
    def __init__(self, client: httpx.Client, target: Target, server: Server) -> None:
        self._client = client
        self._target = target
        self._server = server
        self._variables: dict[str, Any] = {}

    def discover(self, file: RecordedFile) -> None:
        """Give the variables their values, and see whether the contract is offered.

        Raises:
            Absent: It is not.
            Unavailable: Nothing answers.
            Unauthenticated: The key is refused.
        """
        self._variables.update(file.variables)
        for step in file.discover:
            self._steps([step], self._variables)
        self._variables.update(self._server.variables)
        if file.probe is None:
            return
        try:
            answer = self._send(file.probe, self._variables)
        except Unfit as unfit:
            raise Absent(str(unfit)) from None
        except _NoAnswer as error:
            raise Unavailable(self._target.unreachable(str(error))) from None
        if answer.status in (401, 403):
            raise Unauthenticated(f"{self._target} refuses {file.probe} ({answer}); name a key with --api-key")
        # 429 and 5xx are the answers of a server that has the route.
        if 300 <= answer.status < 500 and answer.status != 429:
            raise Absent(f"{file.probe} answers {answer}")
        if answer.status < 300 and list(self._wrong(file.probe, answer, self._variables)):
            raise Absent(f"{file.probe} answers something else: {answer}")

    def run(self, case: RecordedCase) -> list[Problem]:
        """Run a case; its steps after one with problems are left out, as they may build on it."""
        return self._steps(case.steps, dict(self._variables))

    def _steps(self, steps: Sequence[Step], variables: dict[str, Any]) -> list[Problem]:
        for step in steps:
            try:
                answer = self._send(step, variables)
                problems = list(self._wrong(step, answer, variables))
            except Unfit as unfit:
                problems = [Problem(str(step), "a request that can be made", str(unfit))]
            except _NoAnswer as error:
                problems = [Problem(str(step), f"an answer within {self._server.timeout:g} s", str(error))]
            if problems:
                more = len(problems) - _MOST
                return problems[:_MOST] + (
                    [Problem(str(step), "all of it right", f"{more} more places that are not")] if more > 0 else []
                )
        return []

    def _send(self, step: Step, variables: Mapping[str, Any]) -> _Answer:
        import httpx

        send = fill(step.send, variables)
        body = send.get("body")
        headers = {"accept": "application/json", **send.get("headers", {})}
        content = None
        if body is not None:
            # A body that is a string is sent as it is: a contract may say what becomes of one that is no JSON.
            content = body.encode() if isinstance(body, str) else json.dumps(body).encode()
            headers.setdefault("content-type", "application/json")
        path = quote(send["path"], safe="/?=&:@")
        end = time.monotonic() + self._server.timeout
        try:
            with self._client.stream(send["method"], path, content=content, headers=headers) as response:
                parts, size = [], 0
                for part in response.iter_bytes():
                    parts.append(part)
                    size += len(part)
                    if size > _LARGEST:
                        raise _NoAnswer(f"more than {_LARGEST >> 20} MiB")
                    if time.monotonic() > end:
                        raise _NoAnswer("the answer has begun, but does not end")
                return _Answer(response.status_code, response.headers, b"".join(parts))
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise _NoAnswer(f"{type(error).__name__}: {error}".rstrip(": ")) from None

    def _wrong(self, step: Step, answer: _Answer, variables: dict[str, Any]) -> Iterator[Problem]:
        """What is not as it must be; keeps the variables of the step."""
        allowed = step.status or range(200, 300)
        if answer.status not in allowed:
            yield Problem(str(step), f"status {' or '.join(map(str, step.status)) or '2xx'}", str(answer))
            return
        for name, pattern in step.headers.items():
            found = answer.headers.get(name)
            if found is None:
                yield Problem(f"{step}: header {name}", shown(pattern), "no such header")
            else:
                yield from mismatches(fill(pattern, variables), found, f"{step}: header {name}")
        if step.body is None and not step.keep and not step.relations:
            return
        content = answer.json
        if content is _NOT_JSON:
            yield Problem(str(step), "JSON", str(answer))
            return
        found_wrong = False
        if step.body is not None:
            for problem in mismatches(fill(step.body, variables), content):
                found_wrong = True
                yield Problem(": ".join(filter(None, (str(step), problem.where))), problem.expected, problem.got)
        if not found_wrong:
            yield from self._related(step, content, variables)

    def _related(self, step: Step, content: Any, variables: dict[str, Any]) -> Iterator[Problem]:
        try:
            for name, path in step.keep.items():
                variables[name] = look_up(path, content)
        except NoSuchPlace as error:
            yield Problem(str(step), f"a value for ${name}", str(error))
            return
        for relation, arguments in step.relations:
            broken: Broken | None
            try:
                broken = holds(relation, [_argument(each, content, variables) for each in arguments])
            except NoSuchPlace as error:
                broken = Broken("values to compare", str(error))
            if broken is not None:
                yield Problem(f"{step}: {relation.replace('_', ' ')}", broken.expected, broken.got)


def _argument(argument: Any, content: Any, variables: Mapping[str, Any]) -> Any:
    if isinstance(argument, str) and not argument.startswith("$"):
        return look_up(argument, content)
    return fill(argument, variables)


class _NoAnswer(Exception):
    """The server did not answer; the message says how."""
