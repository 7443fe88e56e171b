"""Fixtures that several areas share: reference data, and the default flow running for real."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from flow_support import ROOT, SHARED_DATA, RunningFlow, start_flow, stop_flow
from hypothesis import HealthCheck, settings

os.environ.setdefault("JINA_OPTOUT_TELEMETRY", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

# How long an example takes says nothing on a shared machine.
settings.register_profile("flowdex", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("flowdex")


# What kills, measures times or compares shares: nothing else may run beside it. The others run two at a time.
ALONE = (
    "fault/",
    "integration/test_capacity_measured.py",
    "integration/test_gateway_processes.py",
    "integration/test_gateway_replicas.py",
    "integration/test_gateway_routing.py",
    "integration/test_hostile_connections.py",
    "integration/test_mutation.py",
    "integration/test_index_formats.py",
    "integration/test_pod_rehearsal.py",
    "integration/test_reload.py",
    "integration/test_reranking.py",
    "integration/test_runner_flow.py",
    "integration/test_scaling.py",
    "integration/test_versions_side_by_side.py",
    "integration/worker/test_worker_lifecycle.py",
    "integration/worker/test_worker_stopped.py",
    "unit/client/test_client_pipeline.py",
    "unit/runner/test_runner_supervision.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark those tests, so that `make test` runs them after the others."""
    folder = Path(__file__).parent
    for item in items:
        if item.path.relative_to(folder).as_posix().startswith(ALONE):
            item.add_marker("alone")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of reference data that lies beside a developer's checkout."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the reference data (../shared/data) is not on this machine")
    return SHARED_DATA


@pytest.fixture(scope="session")
def default_flow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningFlow]:
    """The repository's flow.yml, running on free ports with an empty index of its own. Tests share it: clean up."""
    folder = tmp_path_factory.mktemp("default-flow")
    flow = start_flow(folder, (ROOT / "flow.yml").read_text())
    yield flow
    stop_flow(flow)
