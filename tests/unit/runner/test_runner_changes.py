"""What a changed flow file takes: at once, a restart of replicas, or the whole flow."""

from __future__ import annotations

import pytest

from flowdex_orchestrator.flow.load import parse_flow
from flowdex_orchestrator.runner.changes import Action, compare

FLOW = """\
jtype: Flow
with: {port: [51000], timeout_send: 1000}
gateway: {uses_with: {max_in_flight: 8}}
executors:
  - {name: a, uses: x.Y, uses_with: {model: m, batch: 1}, env: {SECRET: hidden}}
  - {name: b, uses: x.Y, replicas: 2}
  - {name: c, uses: x.Y, external: true, port: 9}
"""


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("jtype", "# a comment\njtype", {}),
        ("model: m", "model: n", {"a.uses_with.model": Action.RESTART}),
        (
            "{model: m, batch: 1}",
            "{batch: 2}",
            {"a.uses_with.model": Action.RESTART, "a.uses_with.batch": Action.RESTART},
        ),
        ("SECRET: hidden", "SECRET: changed", {"a.env.SECRET": Action.RESTART}),
        ("replicas: 2", "replicas: 3", {"b.replicas": Action.SCALE}),
        ("replicas: 2", "replicas: 2, autoscale: {max: 3, target_queue_ms: 9}", {"b.autoscale": Action.LIVE}),
        ("replicas: 2", "replicas: 2, timeout_ready: 7", {"b.timeout_ready": Action.LATER}),
        ("replicas: 2", "replicas: 2, retries: 7", {"b.retries": Action.LIVE}),
        ("replicas: 2", "replicas: 2, needs: gateway", {"b.needs": Action.DOWN}),
        ("replicas: 2", "replicas: 2, log_level: DEBUG", {"b.log_level": Action.RESTART}),
        ("external: true", "external: true, env: {A: b}", {"c.env.A": Action.NOTHING}),
        ("port: 9", "port: 10", {"c.ports": Action.DOWN}),
        ("max_in_flight: 8", "max_in_flight: 9", {"gateway.uses_with.max_in_flight": Action.LIVE}),
        (
            "max_in_flight: 8",
            "drain: 9",
            {"gateway.uses_with.max_in_flight": Action.LIVE, "gateway.uses_with.drain": Action.DOWN},
        ),
        ("port: [51000]", "port: [51001]", {"gateway.ports": Action.DOWN}),
        ("port: [51000]", "port: [51000], name: other", {"with.name": Action.DOWN}),
        ("port: [51000]", "port: [51000], cors: true", {"gateway.cors": Action.DOWN}),
        ("name: b", "name: d", {"d": Action.DOWN, "b": Action.DOWN}),
    ],
)
def test_each_key_says_what_it_takes(old: str, new: str, expected: dict[str, Action]) -> None:
    assert old in FLOW
    found = compare(parse_flow(FLOW), parse_flow(FLOW.replace(old, new, 1)))
    assert {change.key: change.action for change in found if change.executor != "gateway"} == expected
    assert "hidden" not in str(found) and "changed" not in str(found)


def test_what_holds_for_all_is_said_of_each() -> None:
    found = compare(parse_flow(FLOW), parse_flow(FLOW.replace("timeout_send: 1000", "timeout_send: 2000")))
    assert {change.key for change in found} == {"gateway.timeout_send", *(f"{name}.timeout_send" for name in "abc")}
    assert {change.action for change in found} == {Action.LIVE}


def test_another_order_is_another_graph() -> None:
    lines = FLOW.splitlines()
    lines[4], lines[5] = lines[5], lines[4]
    found = compare(parse_flow(FLOW), parse_flow("\n".join(lines)))
    assert found[0].key == "executors" and found[0].action is Action.DOWN
