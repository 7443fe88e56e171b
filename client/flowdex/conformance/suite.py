"""The contracts that there are, and a run of them against a server.

[Contract], Server --run--> each contract: session (or absent), each case: Check --> Report
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from flowdex.conformance.bert import BertContract
from flowdex.conformance.http import RecordedContract
from flowdex.conformance.jina_grpc import JinaGrpcContract
from flowdex.conformance.jina_websocket import JinaWebSocketContract
from flowdex.conformance.model import (
    Absent,
    Case,
    CaseResult,
    Check,
    Contract,
    ContractResult,
    Problem,
    Report,
    Server,
    Skipped,
)
from flowdex.conformance.recorded import read_file, recorded_files
from flowdex.errors import ConfigurationError, InvalidInput, Unavailable

__all__ = ["contracts", "run"]

_PROBE = "each contract begins with a request that tells whether it is offered"


def contracts(files: Sequence[Path] = (), chosen: Sequence[str] = ()) -> list[Contract]:
    """The contracts that come with flowdex, and those of one's own.

    Args:
        files: Of further contracts.
        chosen: Names; empty for all.

    Raises:
        ConfigurationError: A file has a mistake, or two contracts have one name.
        InvalidInput: There is none of a chosen name.
    """
    found: dict[str, Contract] = {}
    recorded = [*recorded_files(), *(read_file(path) for path in files)]
    for each in (*map(RecordedContract, recorded), BertContract(), JinaGrpcContract(), JinaWebSocketContract()):
        if each.name in found:
            raise ConfigurationError(f"there are two contracts named {each.name!r}; a file needs a name of its own")
        found[each.name] = each
    for name in chosen:
        if name not in found:
            raise InvalidInput(f"there is no contract {name!r}; there are {', '.join(sorted(found))}")
    return [found[name] for name in sorted(found) if not chosen or name in chosen]


def run(
    server: Server,
    suite: Sequence[Contract],
    *,
    required: Sequence[str] = (),
    started: Callable[[Contract, Case], object] = lambda contract, case: None,
) -> Report:
    """Run contracts, one request after the other.

    An interrupt ends the run: the report then holds what is known so far, and says that it is not complete.

    Args:
        server: To test.
        suite: The contracts.
        required: Names of those that the server must offer.
        started: Is told of each case before it runs.

    Raises:
        Unavailable: Nothing answers. (Where some of the contracts have been run by then, it is a failure of the next.)
        Unauthenticated: The server refuses the key.
    """
    done: list[ContractResult] = []
    try:
        for contract in suite:
            results: list[CaseResult] = []
            done.append(ContractResult(contract.name, contract.title, None, results))
            try:
                with contract.session(server) as check:
                    for case in contract.cases:
                        started(contract, case)
                        results.append(_run(check, case))
            except Absent as absent:
                done[-1] = ContractResult(contract.name, contract.title, str(absent), ())
            except Unavailable as error:
                if not any(each.results for each in done):
                    raise
                # What is known of a server that has gone meanwhile is not thrown away.
                results.append(CaseResult("the probe", _PROBE, [Problem("probe", "an answer", error.message)], 0.0))
    except KeyboardInterrupt:
        return Report(str(server), done, required, complete=False)
    return Report(str(server), done, required)


def _run(check: Check, case: Case) -> CaseResult:
    begin = time.perf_counter()
    problems: Sequence[Problem] = ()
    skipped = None
    try:
        problems = check(case)
    except Skipped as reason:
        skipped = str(reason)
    return CaseResult(case.name, case.rule, problems, time.perf_counter() - begin, skipped)
