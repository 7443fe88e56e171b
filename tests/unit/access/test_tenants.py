"""The tenant in a request's parameters is the key's, whatever the caller writes there."""

from __future__ import annotations

import json
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict
from google.protobuf.struct_pb2 import Struct

from flowdex.errors import PermissionDenied
from flowdex_orchestrator.access.tenants import check_executors, pin
from flowdex_orchestrator.gateway.parameters import specific_to
from flowdex_orchestrator.worker.endpoints import parameters_for

FORGED = [
    {"__tenant__": "globex"},
    {"indexer": {"__tenant__": "globex"}},
    {"indexer____tenant__": "globex"},
    {"indexer": {"indexer____tenant__": "globex", "limit": 3}},
    {"__tenant__": {"__tenant__": "globex"}},
    {"x__indexer____tenant__": "globex", "____tenant__": "globex"},
    {"__tenant__": None, "indexer": {"__tenant__": None}},
]


@pytest.mark.parametrize("forged", FORGED)
def test_no_caller_can_name_another_tenant(forged: dict[str, Any]) -> None:
    parameters = Struct()
    parameters.update({"limit": 5, **forged})
    pin(parameters, "acme")
    for executor in ("indexer", "ranker"):
        routed: Any = MessageToDict(specific_to(executor, parameters))
        for seen in (routed, parameters_for([executor], routed), parameters_for([executor], MessageToDict(parameters))):
            assert seen["__tenant__"] == "acme"
            assert "globex" not in json.dumps(seen)


def test_executors_that_know_nothing_of_tenants_are_not_called() -> None:
    apart = {"encoder": True, "own": False}
    check_executors(apart, ["encoder"])
    with pytest.raises(PermissionDenied, match="'own' does not say"):
        check_executors(apart, ["encoder", "own"])
