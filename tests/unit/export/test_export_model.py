"""From a flow to what has to run: images, ports, variables, volumes, GPUs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from flowdex.errors import ConfigurationError
from flowdex_orchestrator.export import Deployment, Workload, make_deployment
from flowdex_orchestrator.export.compose import render_compose
from flowdex_orchestrator.export.kubernetes import render
from flowdex_orchestrator.export.model import HOME, dns_label
from flowdex_orchestrator.export.roles import Role
from flowdex_orchestrator.export.variables import WITHHELD, read_variables
from flowdex_orchestrator.flow import load_flow, parse_flow

ENCODER = "uses: flowdex_executors.BertEncoder"
INDEXER = "uses: flowdex_executors.QdrantIndexer"
EMBEDDED = {"embedded": True, "uri": "edge://.flowdex/index"}


def deploy(
    body: str,
    facts: Mapping[int, Mapping[str, Any]] | None = None,
    *,
    environment: Mapping[str, str] | None = None,
    **options: Any,
) -> Deployment:
    text = f"jtype: Flow\n{body}\n"
    values = environment or {}
    return make_deployment(parse_flow(text, env=values), text, facts or {}, environment=values, **options)


def one(entry: str, facts: Mapping[str, Any] | None = None, **options: Any) -> Workload:
    return deploy(f"executors: [{{name: a, {entry}}}]", {0: facts or {}}, **options).executors[0]


# ---- commands and addresses ----


def test_the_gateway_knows_all_executors_by_name() -> None:
    made = deploy("with: {protocol: [http, grpc], port: [8081, 5000]}\nexecutors: [{name: My_Enc}, {name: b}]")
    assert made.gateway.arguments == (
        *("gateway", "--flow", "/etc/flowdex/flow.yml", "--host", "0.0.0.0", "--insecure"),
        *("--port-grpc", "5000", "--port-http", "8081"),
        *("--metrics-host", "0.0.0.0", "--metrics-port", "9090"),
        *("--address", "My_Enc=dns:///my-enc:52000", "--address", "b=dns:///b:52000"),
    )
    assert made.gateway.ports == {"grpc": 5000, "http": 8081}
    assert made.executors[0].arguments[:2] == ("executor", "My_Enc")
    assert made.executors[0].env["FLOWDEX_URL"] == "grpc://gateway:5000"


def test_ports_that_the_flow_leaves_open_are_the_usual_ones() -> None:
    made = deploy("with: {protocol: http}\nexecutors: [{name: a}]")
    assert made.gateway.ports == {"http": 8080}
    assert made.executors[0].env["FLOWDEX_URL"] == "http://gateway:8080"


def test_external_executors_run_elsewhere() -> None:
    made = deploy("executors: [{name: a}, {name: b, external: true, host: h, port: 7}]")
    assert [each.name for each in made.executors] == ["a"]
    assert not any("b=" in argument for argument in made.gateway.arguments)


@pytest.mark.parametrize(("names", "words"), [(["a_b", "A_B"], "both be the host 'a-b'"), (["qdrant"], "is taken")])
def test_names_that_cannot_be_hosts_are_refused(names: list[str], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        deploy("executors: [" + ", ".join(f"{{name: {name}}}" for name in names) + "]")


def test_dns_labels() -> None:
    assert dns_label("My_Flow 2") == "my-flow-2"
    assert dns_label("___") == "flow"
    assert len(dns_label("x" * 99)) == 63


# ---- images and resources ----


@pytest.mark.parametrize(
    ("entry", "role", "image"),
    [
        ("uses: flowdex_executors.Segmenter", Role.SEGMENTER, "flowdex-segmenter"),
        (ENCODER, Role.ENCODER, "flowdex-encoder-cpu"),
        ("uses: WordVectorEncoder", Role.ENCODER, "flowdex-encoder-cpu"),
        (f"{ENCODER}, gpus: 1", Role.GPU_ENCODER, "flowdex-encoder-gpu"),
        (INDEXER, Role.INDEXER, "flowdex-indexer"),
        ("uses: flowdex_executors.Ranker", Role.RANKER, "flowdex-ranker"),
        ("uses: Ranker, uses_with: {cross_encoder: m}", Role.OWN, "flowdex-encoder-cpu"),
        ("uses: mine.Encoder", Role.OWN, "flowdex-encoder-cpu"),
        ("uses: {jtype: X}, gpus: all", Role.OWN, "flowdex-encoder-gpu"),
    ],
)
def test_each_kind_of_executor_has_its_image(entry: str, role: Role, image: str) -> None:
    made = one(entry, image_prefix="registry.test/")
    assert made.role is role
    assert made.image.startswith(f"registry.test/{image}:")


def test_what_the_flow_says_goes_before_the_defaults() -> None:
    made = one(
        ENCODER + ", kubernetes: {image: mine:1, resources: {requests: {memory: 8Gi}, limits: {cpu: 4}}, "
        "env: {A: 1}, secret_env: {B: s/k}, node_selector: {x: y}, annotations: {c: d}}",
        image_prefix="registry.test/",
    )
    assert made.image == "mine:1"
    assert made.requests == {"cpu": "1", "memory": "8Gi"}
    assert made.limits == {"memory": "8Gi", "cpu": "4"}  # the default limit would be below what it asks for
    assert made.env["A"] == "1"
    assert made.secret_env == {"B": ("s", "k", False)}
    assert (made.node_selector, made.annotations) == ({"x": "y"}, {"c": "d"})


def test_gpus_bring_their_nodes_and_taints() -> None:
    made = one(f"{ENCODER}, gpus: 2")
    assert made.limits["nvidia.com/gpu"] == "2"
    assert made.node_selector == {"nvidia.com/gpu.present": "true"}
    assert made.tolerations[0]["key"] == "nvidia.com/gpu"
    sliced = one(
        f"{ENCODER}, gpus: all, kubernetes: {{gpu_resource: nvidia.com/mig-1g.10gb, node_selector: {{pool: mig}}, "
        "tolerations: [{operator: Exists}]}"
    )
    assert sliced.limits["nvidia.com/mig-1g.10gb"] == "1"
    assert (sliced.node_selector, sliced.tolerations) == ({"pool": "mig"}, ({"operator": "Exists"},))
    assert one(f"{ENCODER}, gpus: 'device=0,1'").gpus == 2
    assert one(f"{ENCODER}, gpus: 0").gpus == 0


def test_gpus_are_not_dealt_in_a_cluster() -> None:
    made = deploy(f"executors: [{{name: a, {ENCODER}, env: {{CUDA_VISIBLE_DEVICES: RR, X: 1}}}}]")
    assert made.executors[0].env.get("CUDA_VISIBLE_DEVICES") is None
    assert made.executors[0].env["X"] == "1"
    assert "say `gpus: 1`" in made.remarks[0]


def test_the_gpu_overlay_keeps_what_the_flow_asks_for() -> None:
    moved = one(f"{ENCODER}, kubernetes: {{resources: {{requests: {{cpu: 7}}}}}}", image_prefix="r/").on_gpu()
    assert moved.image.startswith("r/flowdex-encoder-gpu:")
    assert moved.requests == {"cpu": "7", "memory": "4Gi"}
    assert moved.limits == {"memory": "8Gi", "nvidia.com/gpu": "1"}
    assert one(f"{ENCODER}, kubernetes: {{image: mine:1}}").on_gpu().image == "mine:1"


# ---- state ----


def test_an_embedded_index_has_one_replica_and_a_volume() -> None:
    made = deploy(
        f"executors: [{{name: a, {INDEXER}, autoscale: {{}}, kubernetes: {{storage: {{size: 5Gi}}}}}}]", {0: EMBEDDED}
    )
    (indexer,) = made.executors
    assert indexer.stateful
    assert (indexer.replicas, indexer.autoscale, indexer.index_mount) == (1, None, HOME)
    assert indexer.index is not None
    assert indexer.index.size == "5Gi"
    assert "`autoscale` has no effect" in made.remarks[0]


def test_an_index_at_an_absolute_place_has_its_volume_there() -> None:
    assert one(INDEXER, {"embedded": True, "uri": "edge:///data/index"}).index_mount == "/data/index"
    assert one(INDEXER, {"embedded": True, "uri": f"edge://{HOME}/x"}).index_mount == HOME


def test_an_index_in_memory_is_said_to_be_lost() -> None:
    made = deploy(f"executors: [{{name: a, {INDEXER}}}]", {0: {"embedded": True, "uri": "memory://"}})
    assert not made.executors[0].stateful
    assert made.executors[0].embedded
    assert "starts with an empty index" in made.remarks[0]


@pytest.mark.parametrize(
    ("uri", "server"),
    [
        ("http://qdrant", ("qdrant", 6333)),
        ("grpcs://q.example.org", ("q.example.org", 6334)),
        ("https://q.example.org:443/x", ("q.example.org", 443)),
        ("grpc://[::1]:1", ("[::1]", 1)),
    ],
)
def test_a_server_is_somewhere_else(uri: str, server: tuple[str, int]) -> None:
    made = one(f"{INDEXER}, replicas: 3", {"embedded": False, "uri": uri})
    assert (made.qdrant, made.replicas, made.stateful) == (server, 3, False)


def test_models_come_from_the_hub_or_from_the_image() -> None:
    assert one(f"{ENCODER}, uses_with: {{model: org/name}}").downloads
    assert not one(ENCODER).downloads
    made = deploy(f"executors: [{{name: a, {ENCODER}, uses_with: {{model: ./mine}}}}]")
    assert not made.executors[0].downloads
    assert "./mine must be at that path in the image" in made.remarks[0]


def test_times_are_those_of_the_flow() -> None:
    made = deploy(
        "gateway: {uses_with: {drain: 12}}\n"
        "executors: [{name: a, timeout_ready: 90000}, {name: b, timeout_ready: 30000}]"
    )
    assert [each.startup for each in made.executors] == [90, 30]
    assert made.gateway.startup == 150  # the slowest executor, then itself
    assert made.gateway.drain == 12
    assert one("timeout_ready: -1").startup == math.inf


# ---- variables ----


def test_secrets_go_only_to_those_that_name_them() -> None:
    made = deploy(
        f"executors: [{{name: a, uses: X}}, {{name: b, {INDEXER}, uses_with: "
        "{uri: '${{ ENV.Q_URL }}', api_key: $Q_API_KEY}}]",
        {1: {"uri": "grpc://q:1"}},
        environment={"Q_URL": "grpc://q:1", "Q_API_KEY": "hush"},
    )
    other, indexer = made.executors
    assert made.variables.plain == {"Q_URL": "grpc://q:1"}
    assert made.variables.secrets == ("Q_API_KEY",)
    assert indexer.secret_env["Q_API_KEY"] == ("flow-secrets", "Q_API_KEY", False)
    assert "Q_API_KEY" not in indexer.env
    assert other.env["Q_API_KEY"] == made.gateway.env["Q_API_KEY"] == WITHHELD
    assert "hush" not in repr(made).replace(repr(made.flow), "")


@pytest.mark.parametrize(
    "body",
    [
        "executors: [{name: a, uses: X, env: {MINE: $A_TOKEN}}]",
        "executors: [{name: a, uses: X, env: {MINE: other}, kubernetes: {env: {MINE: '${{ ENV.A_TOKEN }}'}}}]",
        "with: {env: {MINE: '${A_TOKEN}'}}\nexecutors: [{name: a, uses: X}]",
        "gateway: {env: {MINE: $A_TOKEN}}\nexecutors: [{name: a, uses: X, env: {MINE: $A_TOKEN}}]",
    ],
)
def test_a_secret_under_another_name_stays_one(body: str) -> None:
    made = deploy(body, environment={"A_TOKEN": "hush"})
    (executor,) = made.executors
    assert executor.secret_env["MINE"] == ("flow-secrets", "A_TOKEN", False)
    for each in made.workloads:
        assert "hush" not in each.env.values()
        assert ("MINE" in each.secret_env) is (each is executor or not body.startswith("executors"))
        text = render_compose(made).text + "".join(render(made).values())
        assert "hush" not in text
    assert "MINE: ${A_TOKEN:?set A_TOKEN" in render_compose(made).text


def test_a_secret_amid_other_text_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="a: env MINE has A_TOKEN amid other text"):
        deploy("executors: [{name: a, env: {MINE: 'Bearer $A_TOKEN'}}]", environment={"A_TOKEN": "hush"})
    overridden = "executors: [{name: a, env: {MINE: $A_TOKEN}, kubernetes: {env: {MINE: plain}}}]"
    assert deploy(overridden, environment={"A_TOKEN": "hush"}).executors[0].env["MINE"] == "plain"


def test_a_secret_that_all_share_goes_to_all() -> None:
    found = read_variables("with: {env: {A: $MY_TOKEN}}\nexecutors: [{name: a}]", {"MY_TOKEN": "x"})
    assert found.of == {"gateway": {"MY_TOKEN"}, "a": {"MY_TOKEN"}}


def test_comments_and_escaped_dollars_name_nothing() -> None:
    found = read_variables("x-a: $$HOME ${{ CONTEXT.a }}\nexecutors: [] # $USER", {})
    assert (found.plain, found.secrets) == ({}, ())


def test_who_may_call_the_flow_may_have_its_key() -> None:
    assert one("uses: flowdex_executors.Ranker").secret_env["FLOWDEX_API_KEY"] == (
        "flow-secrets",
        "FLOWDEX_API_KEY",
        True,
    )
    assert "FLOWDEX_API_KEY" not in one(ENCODER).secret_env


# ---- files ----


def test_modules_beside_the_flow_file_go_with_it(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("x = 1\n")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/config.yml").write_text("jtype: X\n")
    (tmp_path / "pack").mkdir()
    first, second = "{name: a, uses: X, py_modules: [mine.py, os, pack]}", "{name: b, uses: sub/config.yml}"
    text = f"jtype: Flow\nexecutors: [{first}, {second}]\n"
    (tmp_path / "flow.yml").write_text(text)
    made = make_deployment(load_flow(tmp_path / "flow.yml"), text, {})
    assert made.files == {"flow.yml": text, "mine.py": "x = 1\n", "sub/config.yml": "jtype: X\n"}
    assert any("package pack must be installed" in remark for remark in made.remarks)
    (tmp_path / "mine.py").unlink()
    with pytest.raises(ConfigurationError, match="there is no file"):
        make_deployment(load_flow(tmp_path / "flow.yml"), text, {})
    (tmp_path / "mine.py").write_text("#" * 1_000_001)
    with pytest.raises(ConfigurationError, match="a ConfigMap holds"):
        make_deployment(load_flow(tmp_path / "flow.yml"), text, {})


# ---- keys ----


def test_a_gateway_with_keys_reads_them_from_a_place_of_their_own() -> None:
    made = deploy("gateway: {keys: keys.json}\nexecutors: [{name: a}]")
    assert made.gateway.keys == "keys.json"
    arguments = made.gateway.arguments
    assert arguments[arguments.index("--keys") + 1] == "/etc/flowdex-keys/keys.json"
    assert "--insecure" not in arguments
    assert "keys.json" not in made.files, "a ConfigMap is no place for keys"
    assert any("kubectl create secret generic flow-keys" in each for each in made.remarks)


def test_a_gateway_without_keys_says_so() -> None:
    made = deploy("executors: [{name: a}]")
    assert "--insecure" in made.gateway.arguments
    assert any("whoever reaches its ports may call it" in each for each in made.remarks)
