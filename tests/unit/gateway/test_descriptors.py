"""Connections are bounded by the descriptors that there are, with the real limits of this process."""

from __future__ import annotations

import resource
from collections.abc import Iterator

import pytest

from flowdex_orchestrator.gateway.descriptors import most_connections, raise_limit


@pytest.fixture
def hard() -> Iterator[int]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_there_are_no_more_connections_than_descriptors(hard: int) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
    assert most_connections(4096) == 384
    assert most_connections(100) == 100


def test_the_soft_limit_is_raised_to_the_hard_one(hard: int) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
    raise_limit()
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
