"""A flow that has been checked and was ready is not checked again; what differs, or fails, brings the check back."""

from __future__ import annotations

from pathlib import Path

import pytest

from flowdex_orchestrator.flow import FlowFileError
from flowdex_orchestrator.flow.load import parse_flow
from flowdex_orchestrator.runner import checking
from flowdex_orchestrator.runner.checking import Checked, check_flow

OURS = "jtype: Flow\nexecutors:\n  - {name: a, uses: flowdex_executors.Ranker}\n"


def test_the_same_flow_is_known_again(tmp_path: Path) -> None:
    flow = parse_flow(OURS)
    checked = Checked(tmp_path, flow, {})
    assert not checked.holds
    checked.remember()
    assert Checked(tmp_path, flow, {"PATH": "elsewhere"}).holds
    for other in (
        Checked(tmp_path, parse_flow(OURS.replace("Ranker", "Segmenter")), {}),
        Checked(tmp_path, flow.with_arguments({"a": {"limit": 3}}), {}),
        Checked(tmp_path, flow.with_replicas({"a": 2}), {}),
        Checked(tmp_path, flow, {"HF_HOME": "elsewhere"}),
        Checked(tmp_path, flow, {"PYTHONPATH": "elsewhere"}),
    ):
        assert not other.holds
    checked.forget()
    assert not checked.holds


def test_another_version_is_another_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flow = parse_flow(OURS)
    Checked(tmp_path, flow, {}).remember()
    monkeypatch.setattr(checking, "flowdex_version", lambda: "9.9.9")
    assert not Checked(tmp_path, flow, {}).holds


@pytest.mark.parametrize("uses", ["mine.Class", "flowdex_executors.Ranker, py_modules: mine.py", "{jtype: Mine}"])
def test_code_of_others_is_always_looked_at(tmp_path: Path, uses: str) -> None:
    checked = Checked(tmp_path, parse_flow(OURS.replace("flowdex_executors.Ranker", uses)), {})
    checked.remember()
    assert not checked.holds


def test_only_classes_are_passed_over(tmp_path: Path) -> None:
    """An argument that no class takes is found by importing it; a wrong key of the gateway without."""
    flow = parse_flow(OURS.replace("Ranker", "Ranker, uses_with: {wrong: 1}"))
    checked = Checked(tmp_path, flow, {})
    with pytest.raises(FlowFileError, match="wrong"):
        check_flow(flow, tmp_path, checked)
    checked.remember()
    assert check_flow(flow, tmp_path, checked) == []
    wrong = parse_flow(OURS.replace("executors:", "gateway: {uses_with: {max_in_fligth: 1}}\nexecutors:"))
    checked = Checked(tmp_path, wrong, {})
    checked.remember()
    with pytest.raises(FlowFileError, match="did you mean 'max_in_flight'"):
        check_flow(wrong, tmp_path, checked)
