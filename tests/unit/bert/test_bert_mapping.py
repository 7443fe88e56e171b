"""bert-as-service's flags and texts in the encoder's terms, its statistic, and its section of a flow file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowdex.compat.bert_texts import documents_of, read_text
from flowdex.errors import ConfigurationError
from flowdex_orchestrator.export.model import make_deployment
from flowdex_orchestrator.flow import FlowFileError, parse_flow
from flowdex_orchestrator.flow.bert import STRATEGIES, Bert
from flowdex_orchestrator.gateway.bert.parameters import encode_parameters
from flowdex_orchestrator.gateway.bert.sessions import Statistic
from flowdex_orchestrator.runner.plan import make_plan
from flowdex_orchestrator.runner.state import RunFolder


@pytest.mark.parametrize(
    ("text", "item"),
    [
        ("hello world", "hello world"),
        ("  hello ", "hello"),
        ("A ||| B", ("A", "B")),
        ("A ||| B ||| C", ("A ||| B", "C")),
        ("A|||B", "A|||B"),
        ("A ||| ", "A |||"),
        ("|||", "|||"),
        (["hello", "world"], ["hello", "world"]),
        (["un", "##believ", "##able", "story"], ["unbelievable", "story"]),
        (["##able"], ["##able"]),
        (["un", "##"], ["un", "##"]),
        (["a", "b", "|||", "c"], ("a b", "c")),
        (["|||", "a"], ["|||", "a"]),
        (["a", " "], ["a"]),
    ],
)
def test_texts_pairs_and_tokens(text: Any, item: Any) -> None:
    assert read_text(text) == item


def test_documents_of_all_kinds() -> None:
    batch = documents_of(["one", "A ||| B", ["two", "words"]])
    assert batch.texts == ["one", "A", "two words"]
    assert batch.column("text_pair") == [None, "B", None]
    assert batch.column("words") == [None, None, ["two", "words"]]


@given(st.text().filter(str.strip))
def test_no_text_becomes_blank(text: str) -> None:
    item = read_text(text)
    assert all(part.strip() for part in (item if isinstance(item, tuple) else [item]))


def test_the_defaults_are_those_of_bert_serving_start() -> None:
    assert encode_parameters(Bert()) == {"pooling": "mean", "layers": [-2], "normalize": False, "max_length": 25}


def test_flags_as_parameters() -> None:
    flags = Bert.model_validate(
        {
            "pooling_strategy": "cls_token",
            "pooling_layer": [0, -1],
            "max_seq_len": "NONE",
            "show_tokens_to_client": True,
        }
    )
    assert encode_parameters(flags) == {"tokens": True, "pooling": "cls", "layers": [1, -1], "normalize": False}
    assert encode_parameters(Bert(pooling_strategy="ENCODER")) == {}
    assert encode_parameters(Bert(mask_cls_sep=True))["mask_special"] is True
    for name in set(STRATEGIES) - {"ENCODER"}:
        assert encode_parameters(Bert(pooling_strategy=name))["pooling"]


HEAD = "jtype: Flow\nwith:\n  protocol: [grpc, bert]\n  port: [51000, 5555]\ngateway:\n"


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("  bert: {max_seq_len: 2}", "flow.yml:6:10: gateway.bert.max_seq_len: expected a number of tokens"),
        (
            "  bert:\n    pooling_strategy: REDUCE_MEEN",
            "flow.yml:7:5: gateway.bert.pooling_strategy: expected a pooling",
        ),
        ("  bert:\n    num_worker: 4", "flow.yml:7:5: gateway.bert.num_worker: it is set at the encoder: replicas: N"),
        ("  bert:\n    max_sequence_len: 4", "flow.yml:7:5: gateway.bert.max_sequence_len: unknown key (did you mean"),
        ("  bert:\n    port_out: 51000", "flow.yml:7:5: gateway.bert.port_out: expected a port that no protocol has"),
        ("  bert: {fixed_embed_length: true, max_seq_len: NONE}", "fixed_embed_length needs a max_seq_len"),
    ],
)
def test_mistakes_are_found_where_they_stand(section: str, message: str) -> None:
    with pytest.raises(FlowFileError) as caught:
        parse_flow(HEAD + section, file="flow.yml")
    assert message in str(caught.value)


def test_the_second_port() -> None:
    assert parse_flow(HEAD + "  name: g").gateway.listeners() == [("grpc", 51000), ("bert", 5555), ("bert-out", 5556)]
    given_port = parse_flow(HEAD + "  bert: {port_out: 7000}").gateway.listeners()
    assert given_port[-1] == ("bert-out", 7000)
    with pytest.raises(FlowFileError, match="takes the one after its port"):
        parse_flow("jtype: Flow\nwith: {protocol: [grpc, bert], port: [5556, 5555]}")


def test_the_statistic() -> None:
    now = 0.0
    statistic = Statistic(clock=lambda: now)
    assert "avg_request_per_second" not in statistic.values()
    for _ in range(3):
        statistic.add(b"a", 4)
        now += 0.5
    statistic.add(b"b", 1)
    statistic.add(b"b", None)
    now += 1000
    found = statistic.values()
    assert (found["num_data_request"], found["num_sys_request"], found["num_total_request"]) == (4, 1, 5)
    assert (found["num_total_seq"], found["num_total_client"], found["num_active_client"]) == (13, 2, 0)
    assert found["avg_request_per_second"] == found["max_request_per_second"] == 2
    assert found["avg_size_per_request"] == 13 / 4
    assert (found["min_request_per_client"], found["max_request_per_client"]) == (2, 3)


def test_the_statistic_stays_small() -> None:
    statistic = Statistic()
    for number in range(2000):
        statistic.add(b"%d" % number, number)
    assert statistic.values()["num_total_client"] == 2000
    assert len(statistic._requests) == len(statistic._last_seen) == 500


def test_the_runner_gives_the_gateway_both_ports(tmp_path: Path) -> None:
    flow = parse_flow("jtype: Flow\nwith: {protocol: [grpc, bert], port: [0, 0]}")
    plan = make_plan(flow, tmp_path / "flow.yml", RunFolder(tmp_path / "flow.yml", tmp_path), tmp_path)
    assert plan.gateway.launch is not None
    command = plan.gateway.launch.command
    ports = {command[command.index(f"--port-{name}") + 1] for name in ("grpc", "bert", "bert-out")}
    assert len(ports) == 3
    assert "0" not in ports
    assert plan.endpoints["bert"].startswith("tcp://127.0.0.1:")


def test_free_ports_are_free_for_replies_too() -> None:
    flow = parse_flow(HEAD + "  bert: {port_out: 7000}").with_free_ports()
    assert flow.gateway.listeners() == [("grpc", 0), ("bert", 0), ("bert-out", 0)]


def test_export_refuses_what_cannot_work_there() -> None:
    text = HEAD + "  kubernetes: {replicas: 2}"
    with pytest.raises(ConfigurationError, match=r"replicas is 2, but protocol: bert takes one gateway.*BertClient"):
        make_deployment(parse_flow(text), text, {})
