"""Faults of tests/chaos once each, in a flow that runs for real, under load (docs/faults.md has the long form).

What holds for each: an answer is right, or there is a typed error within the deadline; what was acknowledged is there,
once; and the flow recovers by itself.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from chaos import clients, clock, disk, documents, processes, remote, replicas  # noqa: F401 - they register themselves
from chaos.faults import FAULTS, Setting, Skipped

# These have tests of their own, which take less time: test_*_killed.py here, and of the integration tests
# worker/test_worker_stopped.py and test_hostile_connections.py.
ELSEWHERE = {"kill", "resume", "stop", "slow-client", "idle-connections"}


@pytest.mark.timeout(240)
@pytest.mark.parametrize("name", sorted(FAULTS.keys() - ELSEWHERE))
async def test_fault(name: str, tmp_path: Path) -> None:
    try:
        rows = await FAULTS[name].run(Setting(tmp_path / name, rounds=1))
    except Skipped as reason:
        pytest.skip(str(reason))
    for row in rows:
        row.tally.check()
        assert row.tally.sent
