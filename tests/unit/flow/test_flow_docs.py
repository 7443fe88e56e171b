"""The tables of docs/flows.md are those of the models."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from flowdex_orchestrator.flow import Executor, FlowFileError, FlowSettings, Gateway, parse_flow
from flowdex_orchestrator.flow.bert import Bert
from flowdex_orchestrator.flow.check import check_flow
from flowdex_orchestrator.flow.deployment import Autoscale, ExecutorKubernetes, GatewayKubernetes
from flowdex_orchestrator.flow.schema import key_table

PAGE = Path(__file__).resolve().parents[3] / "docs/flows.md"


@pytest.mark.parametrize(
    "section", [FlowSettings, Gateway, Bert, Executor, Autoscale, ExecutorKubernetes, GatewayKubernetes]
)
def test_the_table_of_keys_is_up_to_date(section: Any) -> None:
    table = key_table(section)
    assert table in PAGE.read_text(encoding="utf-8"), f"the table must be:\n{table}"


BLOCKS = re.findall(r"^```yaml\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("text", BLOCKS)
def test_the_examples_are_flows(text: str) -> None:
    flow = parse_flow(text, env={"QDRANT_URL": "http://127.0.0.1:6333"})
    assert check_flow(flow, ports=False, classes=False) == []


def test_the_example_of_mistakes(tmp_path: Path) -> None:
    (shown,) = re.findall(r"^```text\n(flow.yml:.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    text = (
        "jtype: Flow\nversion: '1'\nwith:\n  prot: 51000\nexecutors:\n  - name: encoder\n"
        "    uses: flowdex_executors.BertEncoder\n    replicas: two\n  - name: indexer\n    needs: encodr\n"
    )
    with pytest.raises(FlowFileError) as caught:
        parse_flow(text, file="flow.yml")
    assert str(caught.value) == shown.strip()
