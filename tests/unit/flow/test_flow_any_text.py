"""Whatever a file holds, reading it gives a flow or a ConfigurationError that points into the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flowdex_orchestrator.flow import Flow, FlowFileError, parse_flow
from flowdex_orchestrator.gateway.topology import Topology

DEFAULT = (Path(__file__).resolve().parents[3] / "flow.yml").read_text()
KEYS = [
    *("jtype", "version", "with", "gateway", "executors", "deployments", "x-own", "pods"),
    *("name", "uses", "uses_with", "needs", "replicas", "port", "ports", "protocol", "host", "env", "external"),
    *("timeout_send", "gpus", "polling", "volumes", "py_modules", "floating", "<<", "docker_kwargs", "method"),
]
WORDS = ["Flow", "gateway", "a", "b", "grpc", "http", "all", "ANY", "$X", "${{ ENV.X }}", "${{ x }}", "1", "[a", ""]
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 70_000), st.floats(), st.sampled_from(WORDS), st.text(max_size=8)
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.one_of(st.sampled_from(KEYS), st.text(max_size=5), st.integers()), inner, max_size=5),
    ),
    max_leaves=25,
)
executors = st.lists(st.dictionaries(st.sampled_from(KEYS), values, max_size=6), max_size=4)
flows = st.fixed_dictionaries(
    {"jtype": st.just("Flow"), "executors": st.one_of(executors, values)},
    optional={"with": values, "gateway": values, "version": scalars},
)


def read(text: str) -> Flow | None:
    """The flow, or None where the text is none; anything but a FlowFileError fails the test."""
    try:
        return parse_flow(text, file="f.yml", env={"X": "2"}, context={"x": [1]})
    except FlowFileError as error:
        assert error.findings
        lines = (
            text.count("\n") + text.count("\r") + text.count("\x85") + text.count("\u2028") + text.count("\u2029") + 1
        )
        for finding in error.findings:
            assert finding.file == "f.yml"
            assert finding.line is not None and 1 <= finding.line <= lines + 1
            assert finding.column is not None and finding.column >= 1
            assert finding.message
        return None


@settings(max_examples=100, deadline=None)
@given(st.text())
@example("jtype: Flow\nwith: &a\n  x: *a\n")
@example("? ? ?")
@example("%YAML 3.0\n---\na")
@example("jtype: Flow\nwith: {timeout_send: 1_000, retries: 0x7fffffffffffffffffff, replicas: 1:30}\n")
@example("jtype: Flow\nwith: {retries: !!int '', cors: !!bool '', name: !!binary 'x', env: !!set {a}}\n")
@example("jtype: Flow\nexecutors: [{name: !!str 5, needs: [!!float x]}, !!omap [a: b]]\n")
@example("\ufeffjtype: Flow")
@example("\ud800")
def test_any_text(text: str) -> None:
    read(text)


@settings(max_examples=100, deadline=None)
@given(values)
def test_any_yaml(value: Any) -> None:
    read(yaml.safe_dump(value, allow_unicode=True))


@settings(max_examples=100, deadline=None)
@given(flows)
def test_any_mapping_that_looks_like_a_flow(value: Any) -> None:
    flow = read(yaml.safe_dump(value, allow_unicode=True))
    if flow is not None:
        names = [executor.name for executor in flow.executors]
        assert sorted(Topology(flow.predecessors()).executors) == sorted(names)
        assert list(flow.predecessors()) == names
        for executor in flow.executors:
            assert executor.replicas >= 1
            executor.addresses()
        assert len(flow.gateway.listeners()) == len(flow.gateway.protocols)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, len(DEFAULT)), st.integers(0, 10), st.text(alphabet="{}[]:,-&*!|>'\"%@`#$ \n\tab1", max_size=4))
def test_the_default_flow_with_a_slip_of_the_pen(start: int, length: int, text: str) -> None:
    read(DEFAULT[:start] + text + DEFAULT[start + length :])
