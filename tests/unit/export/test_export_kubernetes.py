"""From a deployment to objects: each branch of the model has its part of a manifest."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from flowdex.cli.main import main
from flowdex.errors import ConfigurationError
from flowdex_orchestrator.export import make_deployment
from flowdex_orchestrator.export.compose import render_compose
from flowdex_orchestrator.export.folder import LIST, write_folder
from flowdex_orchestrator.export.kubernetes import render
from flowdex_orchestrator.export.model import METRICS_PORT
from flowdex_orchestrator.flow import parse_flow

ROOT = Path(__file__).resolve().parents[3]
FLOW = (ROOT / "flow.yml").read_text(encoding="utf-8")
EMBEDDED = {"embedded": True, "uri": "edge://.flowdex/index"}
Files = dict[str, str]


def export(
    text: str, facts: Mapping[int, Mapping[str, Any]] | None = None, env: Mapping[str, str] | None = None
) -> Files:
    text = text if text.startswith("#") else f"jtype: Flow\n{text}\n"
    return render(make_deployment(parse_flow(text, env=env or {}), text, facts or {}, environment=env or {}))


def objects(files: Files, path: str) -> dict[str, Any]:
    """The objects of a file by their kind and name."""
    found = [each for each in yaml.safe_load_all(files[path]) if each]
    return {f"{each['kind']}/{each['metadata']['name']}": each for each in found}


def pod(item: Mapping[str, Any]) -> Any:
    return item["spec"]["template"]["spec"]


@pytest.fixture(scope="module")
def default() -> Files:
    return export(FLOW, {2: EMBEDDED})


def test_the_committed_manifests_are_those_of_the_default_flow(default: Files) -> None:
    folder = ROOT / "k8s"
    committed = {
        str(path.relative_to(folder)): path.read_text(encoding="utf-8")
        for path in folder.rglob("*")
        if path.is_file() and path.name != LIST
    }
    assert committed == default, "run: flowdex export kubernetes flow.yml -o k8s"


# ---- workloads ----


def test_a_stateless_executor_rolls_without_loss(default: Files) -> None:
    made = objects(default, "base/encoder.yaml")
    spec = made["Deployment/encoder"]["spec"]
    assert spec["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    container = pod(made["Deployment/encoder"])["containers"][0]
    assert container["lifecycle"]["preStop"]["exec"]["command"] == ["sleep", "8"]
    assert pod(made["Deployment/encoder"])["terminationGracePeriodSeconds"] >= 8 + 30
    assert container["startupProbe"]["failureThreshold"] * container["startupProbe"]["periodSeconds"] == 600
    service = made["Service/encoder"]["spec"]
    assert (service["clusterIP"], service["ports"][0]["port"]) == ("None", 52000)


def test_an_embedded_index_is_a_stateful_set_with_a_volume(default: Files) -> None:
    made = objects(default, "base/indexer.yaml")
    item = made["StatefulSet/indexer"]
    assert item["spec"]["replicas"] == 1
    assert item["spec"]["serviceName"] == "indexer"
    assert item["spec"]["volumeClaimTemplates"][0]["metadata"]["name"] == "index"
    container = pod(item)["containers"][0]
    mounts = {each["name"]: each["mountPath"] for each in container["volumeMounts"]}
    assert mounts["index"] == container["workingDir"]
    assert not any(key.startswith(("HorizontalPodAutoscaler", "PodDisruptionBudget")) for key in made)


def test_an_absolute_index_has_a_mount_of_its_own() -> None:
    files = export("executors: [{name: a, uses: X}]", {0: {"embedded": True, "uri": "edge:///data/index"}})
    mounts = pod(objects(files, "base/a.yaml")["StatefulSet/a"])["containers"][0]["volumeMounts"]
    assert {"name": "index", "mountPath": "/data/index", "subPath": "index"} in mounts
    assert any(each["name"] == "home" for each in mounts)


def test_an_index_in_memory_is_never_two() -> None:
    files = export("executors: [{name: a, uses: X}]", {0: {"embedded": True, "uri": "memory://"}})
    assert objects(files, "base/a.yaml")["Deployment/a"]["spec"]["strategy"] == {"type": "Recreate"}


def test_an_autoscaler_owns_the_number_of_replicas() -> None:
    files = export("executors: [{name: a, uses: X, replicas: 3, autoscale: {min: 3, max: 9, target_cpu: 0.5}}]")
    made = objects(files, "base/a.yaml")
    assert "replicas" not in made["Deployment/a"]["spec"]
    spec = made["HorizontalPodAutoscaler/a"]["spec"]
    assert (spec["minReplicas"], spec["maxReplicas"]) == (3, 9)
    assert spec["metrics"][0]["resource"]["target"]["averageUtilization"] == 50
    assert made["PodDisruptionBudget/a"]["spec"]["minAvailable"] == 2


@pytest.mark.parametrize(
    ("more", "name"), [("", "flowdex_executor_queue_milliseconds"), (", kubernetes: {metric: mine}", "mine")]
)
def test_a_queue_is_an_external_metric(more: str, name: str) -> None:
    files = export(f"executors: [{{name: a_b, uses: X, autoscale: {{target_queue_ms: 20}}{more}}}]")
    (metric,) = objects(files, "base/a-b.yaml")["HorizontalPodAutoscaler/a-b"]["spec"]["metrics"]
    assert metric["external"]["metric"] == {"name": name, "selector": {"matchLabels": {"executor": "a_b"}}}
    assert metric["external"]["target"] == {"type": "Value", "value": "20"}
    scaled = objects(files, "components/keda/scaled-objects.yaml")["ScaledObject/a-b"]["spec"]
    assert scaled["triggers"][0]["metadata"]["threshold"] == "20"
    assert f'{name}{{executor="a_b"' in scaled["triggers"][0]["metadata"]["query"]


def test_one_replica_has_no_disruption_budget(default: Files) -> None:
    assert "PodDisruptionBudget" not in "".join(text for path, text in default.items() if path.startswith("base/"))
    files = export("gateway: {kubernetes: {replicas: 2}}\nexecutors: [{name: a, replicas: 2}]")
    assert "PodDisruptionBudget/gateway" in objects(files, "base/gateway.yaml")
    assert objects(files, "base/a.yaml")["PodDisruptionBudget/a"]["spec"]["minAvailable"] == 1


def test_threads_are_those_of_the_request(default: Files) -> None:
    env = {
        each["name"]: each
        for each in pod(objects(default, "base/encoder.yaml")["Deployment/encoder"])["containers"][0]["env"]
    }
    assert env["OMP_NUM_THREADS"]["valueFrom"]["resourceFieldRef"]["resource"] == "requests.cpu"
    files = export("executors: [{name: a, env: {OMP_NUM_THREADS: 3}}]")
    names = [
        each
        for each in pod(objects(files, "base/a.yaml")["Deployment/a"])["containers"][0]["env"]
        if each["name"] == "OMP_NUM_THREADS"
    ]
    assert names == [{"name": "OMP_NUM_THREADS", "value": "3"}]


def test_downloaded_models_may_have_a_volume() -> None:
    entry = "name: a, uses: flowdex_executors.BertEncoder, uses_with: {model: org/m}"
    entry += ", kubernetes: {model_cache: {size: 3Gi, class: nfs}}"
    files = export(f"executors: [{{{entry}, replicas: 2}}]")
    made = objects(files, "base/a.yaml")
    claim = made["PersistentVolumeClaim/a-models"]["spec"]
    assert (claim["accessModes"], claim["storageClassName"]) == (["ReadWriteMany"], "nfs")
    volumes = {each["name"]: each for each in pod(made["Deployment/a"])["volumes"]}
    assert volumes["cache"]["persistentVolumeClaim"]["claimName"] == "a-models"
    egress = objects(files, "base/network-policies.yaml")["NetworkPolicy/a"]["spec"]["egress"]
    assert egress[0]["ports"] == [{"protocol": "TCP", "port": 443}]


def test_variables_and_secrets() -> None:
    env = {"URL": "grpc://elsewhere.test:1", "MY_KEY": "hush"}
    indexer = "{name: a, uses: flowdex_executors.QdrantIndexer, uses_with: {uri: $URL, api_key: $MY_KEY}}"
    text = f"executors: [{indexer}, {{name: b}}]"
    files = export(text, {0: {"uri": env["URL"]}}, env)
    assert "hush" not in "".join(files.values())
    generators = yaml.safe_load(files["base/kustomization.yaml"])["configMapGenerator"]
    assert generators[1] == {"name": "flow-environment", "literals": ["URL=grpc://elsewhere.test:1"]}
    container = pod(objects(files, "base/a.yaml")["Deployment/a"])["containers"][0]
    assert container["envFrom"] == [{"configMapRef": {"name": "flow-environment"}}]
    assert {"name": "MY_KEY", "valueFrom": {"secretKeyRef": {"name": "flow-secrets", "key": "MY_KEY"}}} in container[
        "env"
    ]
    egress = objects(files, "base/network-policies.yaml")["NetworkPolicy/a"]["spec"]["egress"]
    assert egress[0]["ports"] == [{"protocol": "TCP", "port": 1}]
    assert not any(path.startswith("components/qdrant") for path in files)


def test_files_in_folders_find_their_places(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own/mine.py").write_text("x = 1\n")
    text = "jtype: Flow\nexecutors: [{name: a, uses: X, py_modules: own/mine.py}]\n"
    flow = parse_flow(text, file=str(tmp_path / "flow.yml"))
    files = render(make_deployment(flow, text, {}))
    assert files["base/own__mine.py"] == "x = 1\n"
    volumes = {each["name"]: each for each in pod(objects(files, "base/a.yaml")["Deployment/a"])["volumes"]}
    assert {"key": "own__mine.py", "path": "own/mine.py"} in volumes["flow"]["configMap"]["items"]


# ---- gateway, ingress ----


def test_the_gateway_stays_in_service_while_an_executor_is_away(default: Files) -> None:
    container = pod(objects(default, "base/gateway.yaml")["Deployment/gateway"])["containers"][0]
    assert container["startupProbe"]["grpc"] == {"port": 51000}
    assert container["readinessProbe"]["httpGet"]["path"] == "/health/live"
    only_grpc = pod(objects(export("executors: [{name: a}]"), "base/gateway.yaml")["Deployment/gateway"])["containers"][
        0
    ]
    assert only_grpc["livenessProbe"]["tcpSocket"] == {"port": "grpc"}
    only_http = export("with: {protocol: http}\nexecutors: [{name: a}]")
    container = pod(objects(only_http, "base/gateway.yaml")["Deployment/gateway"])["containers"][0]
    assert container["startupProbe"]["httpGet"]["path"] == "/health/ready"


def test_an_ingress_of_the_flow_is_in_the_base() -> None:
    files = export(
        "with: {protocol: [grpc, http]}\n"
        "gateway: {kubernetes: {service: {type: LoadBalancer}, ingress: {host: s.test, tls_secret: t, class: c}}}\n"
        "executors: [{name: a}]"
    )
    made = objects(files, "base/ingress.yaml")
    http, grpc = made["Ingress/gateway-http"], made["Ingress/gateway-grpc"]
    assert http["spec"]["rules"][0]["host"] == "s.test"
    assert grpc["spec"]["rules"][0]["host"] == "grpc.s.test"
    assert grpc["metadata"]["annotations"]["nginx.ingress.kubernetes.io/backend-protocol"] == "GRPC"
    assert (http["spec"]["ingressClassName"], http["spec"]["tls"][0]["secretName"]) == ("c", "t")
    assert objects(files, "base/gateway.yaml")["Service/gateway"]["spec"]["type"] == "LoadBalancer"
    assert "../../components/ingress" not in files["overlays/production/kustomization.yaml"]
    assert "components/ingress/ingress.yaml" not in files


# ---- policies ----


def test_only_the_gateway_is_reachable(default: Files) -> None:
    policies = objects(default, "base/network-policies.yaml")
    assert "ingress" not in policies["NetworkPolicy/everybody"]["spec"]  # nothing
    assert "from" not in policies["NetworkPolicy/gateway"]["spec"]["ingress"][0]  # anyone
    for name in ("segmenter", "encoder", "indexer", "ranker"):
        (rule,) = policies[f"NetworkPolicy/{name}"]["spec"]["ingress"]
        (source,) = rule["from"]
        assert source["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "gateway"
        assert rule["ports"] == [{"protocol": "TCP", "port": 52000}]
    egress = {name: "egress" in item["spec"] for name, item in policies.items()}
    assert egress["NetworkPolicy/ranker"]
    assert not egress["NetworkPolicy/encoder"]


def test_external_executors_may_be_reached() -> None:
    files = export("executors: [{name: a}, {name: b, external: true, host: [h, i], port: [7, 8]}]")
    egress = objects(files, "base/network-policies.yaml")["NetworkPolicy/gateway"]["spec"]["egress"]
    assert egress[-1]["ports"] == [{"protocol": "TCP", "port": 7}, {"protocol": "TCP", "port": 8}]


# ---- overlays and components ----


def test_gpus_of_the_overlay(default: Files) -> None:
    (patch,) = yaml.safe_load_all(default["overlays/gpu/encoders.yaml"])
    container = pod(patch)["containers"][0]
    assert container["image"].startswith("flowdex-encoder-gpu:")
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert pod(patch)["tolerations"][0]["key"] == "nvidia.com/gpu"
    has_them = export("executors: [{name: a, uses: flowdex_executors.BertEncoder, gpus: 1}]")
    assert "overlays/gpu/encoders.yaml" not in has_them
    assert pod(objects(has_them, "base/a.yaml")["Deployment/a"])["nodeSelector"]


def test_the_flow_on_a_server_is_the_flow_with_another_index(default: Files) -> None:
    for name, cluster in (("qdrant", False), ("qdrant-cluster", True)):
        flow = parse_flow(default[f"components/{name}/flow.yml"], env={"QDRANT_API_KEY": "k"})
        indexer = flow.executor("indexer")
        assert indexer.uses_with["uri"] == "grpc://qdrant:6334"
        assert indexer.uses_with["api_key"] == "k"
        assert ("server" in indexer.uses_with) is cluster
        before = parse_flow(FLOW)
        assert [each.name for each in flow.executors] == [each.name for each in before.executors]
        assert flow.executor("encoder") == before.executor("encoder")


def test_a_flow_with_a_server_of_its_own_keeps_its_file() -> None:
    files = export(
        "executors: [{name: a, uses: flowdex_executors.QdrantIndexer, uses_with: {uri: 'grpc://qdrant:6334'}}]",
        {0: {"uri": "grpc://qdrant:6334"}},
    )
    assert "components/qdrant/flow.yml" not in files
    assert "NetworkPolicy/a-to-qdrant" in objects(files, "components/qdrant/network-policies.yaml")


def test_dashboards_are_json(default: Files) -> None:
    board = json.loads(default["components/monitoring/dashboard.json"])
    for panel in board["panels"]:
        for target in panel["targets"]:
            assert '{namespace="$namespace"' in target["expr"]
            assert target["expr"].count("{") == target["expr"].count("}")


def test_every_pod_is_scraped_and_prometheus_may(default: Files) -> None:
    monitor, policy = yaml.safe_load_all(default["components/monitoring/pod-monitor.yaml"])
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    (rule,) = policy["spec"]["ingress"]
    assert rule == {"from": [{"namespaceSelector": {}}], "ports": [{"protocol": "TCP", "port": METRICS_PORT}]}
    for name in ("gateway", "segmenter", "encoder", "indexer", "ranker"):
        (workload,) = (
            each
            for each in yaml.safe_load_all(default[f"base/{name}.yaml"])
            if each["kind"] in ("Deployment", "StatefulSet")
        )
        template = workload["spec"]["template"]
        assert monitor["spec"]["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
        assert policy["spec"]["podSelector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
        (container,) = template["spec"]["containers"]
        assert {each["name"]: each["containerPort"] for each in container["ports"]}[endpoint["port"]] == METRICS_PORT
        arguments = container["args"]
        assert arguments[arguments.index("--metrics-port") + 1] == str(METRICS_PORT)
        assert arguments[arguments.index("--metrics-host") + 1] == "0.0.0.0"


# ---- writing ----


def test_files_say_what_they_are_and_can_be_read(default: Files) -> None:
    for path, text in default.items():
        if path.endswith(".yaml"):
            assert text.startswith("# "), path
            assert "Written by `flowdex export kubernetes`" in text
            assert list(yaml.safe_load_all(text)), path
            assert "&id" not in text  # no anchors


def test_an_export_leaves_nothing_of_the_one_before(tmp_path: Path) -> None:
    write_folder(tmp_path, {"base/a.yaml": "a", "old/b.yaml": "b"})
    (tmp_path / "base/mine.yaml").write_text("mine")
    write_folder(tmp_path, {"base/c.yaml": "c"})
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert left == [LIST, "base/c.yaml", "base/mine.yaml"]
    assert not (tmp_path / "old").exists()


def test_a_list_that_leads_elsewhere_removes_nothing(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "precious").write_text("x")
    (tmp_path / "out" / LIST).write_text(f"../precious\n{tmp_path}/precious\n")
    write_folder(tmp_path / "out", {"a": "a"})
    assert (tmp_path / "precious").exists()


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("x")
    with pytest.raises(ConfigurationError, match="cannot be written to"):
        write_folder(tmp_path / "out", {"a": "a"})


# ---- commands ----


@pytest.fixture
def flow_file(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "flow.yml"
    path.write_text("jtype: Flow\nwith: {name: Mine}\nexecutors: [{name: a, uses: flowdex_executors.Ranker}]\n")
    yield path


def test_the_command_writes_the_folder(flow_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = CliRunner().invoke(main, ["export", "kubernetes", str(flow_file), "-o", str(out), "--namespace", "Other_ns"])
    assert done.exit_code == 0, done.output
    base = yaml.safe_load((out / "base/kustomization.yaml").read_text())
    assert base["namespace"] == "other-ns"
    assert (out / "base/flow.yml").read_text() == flow_file.read_text()


def test_a_flow_with_a_mistake_is_not_exported(flow_file: Path, tmp_path: Path) -> None:
    flow_file.write_text("jtype: Flow\nexecutors: [{name: a, uses: flowdex_executors.Rankr}]\n")
    done = CliRunner().invoke(main, ["export", "kubernetes", str(flow_file), "-o", str(tmp_path / "out")])
    assert done.exit_code == 1
    assert "flow.yml:2" in done.output
    assert not (tmp_path / "out").exists()


def test_compose_has_the_same_commands(flow_file: Path) -> None:
    done = CliRunner().invoke(main, ["export", "docker-compose", str(flow_file)])
    assert done.exit_code == 0, done.output
    stack = yaml.safe_load(done.stdout)
    assert set(stack["services"]) == {"gateway", "a"}
    assert stack["services"]["a"]["command"][:2] == ["executor", "a"]
    assert "a=dns:///a:52000" in stack["services"]["gateway"]["command"]


def test_compose_in_all_its_parts() -> None:
    env = {"URL": "u", "MY_KEY": "hush"}
    text = (
        "jtype: Flow\nwith: {protocol: [grpc, http], port: [51000, 8080]}\nexecutors:\n"
        "- {name: a, uses: flowdex_executors.BertEncoder, gpus: 2, replicas: 3, uses_with: {model: org/m}}\n"
        "- {name: b, uses: X, uses_with: {u: $URL, k: $MY_KEY}, env: {P: 'a$$b'}}\n"
        "- {name: c, uses: X}\n"
    )
    flow = parse_flow(text, env=env)
    stack = yaml.safe_load(render_compose(make_deployment(flow, text, {2: EMBEDDED}, environment=env)).text)
    a, b, c = (stack["services"][name] for name in "abc")
    assert a["scale"] == 3
    assert a["deploy"]["resources"]["reservations"]["devices"][0]["count"] == 2
    assert "models:/var/cache/flowdex" in a["volumes"]
    assert b["environment"]["URL"] == "${URL:-u}"
    assert b["environment"]["MY_KEY"].startswith("${MY_KEY:?")
    assert b["environment"]["P"] == "a$$b"
    assert "c-index:/var/lib/flowdex" in c["volumes"]
    assert "/var/lib/flowdex" not in c["tmpfs"]
    assert set(stack["volumes"]) == {"c-index", "models"}
    assert stack["services"]["gateway"]["ports"] == ["127.0.0.1:51000:51000", "127.0.0.1:8080:8080"]


def test_the_ports_of_bert_as_service_lead_to_one_gateway() -> None:
    text = "with: {protocol: [grpc, http, websocket, bert], port: [51000, 8080, 8081, 6000]}"
    executors = "executors: [{name: encoder, uses: flowdex_executors.BertEncoder}]"
    files = export(f"{text}\ngateway: {{kubernetes: {{ingress: {{host: search.example.org}}}}}}\n{executors}")
    names = {"grpc": 51000, "http": 8080, "websocket": 8081, "bert": 6000, "bert-out": 6001}
    base = {key: item for name in files if name.startswith("base/") for key, item in _objects_of(files, name).items()}
    assert {each["name"]: each["port"] for each in base["Service/gateway"]["spec"]["ports"]} == names
    (container,) = pod(base["Deployment/gateway"])["containers"]
    assert {each["name"]: each["containerPort"] for each in container["ports"]} == {**names, "metrics": METRICS_PORT}
    command = [*container.get("command", []), *container["args"]]
    assert command[command.index("--port-bert-out") + 1] == "6001"
    assert base["Deployment/gateway"]["spec"].get("replicas", 1) == 1
    production = objects(files, "overlays/production/replicas.yaml")
    assert "Deployment/gateway" not in production
    led_in = {key for key in base if key.startswith("Ingress/")}
    assert led_in == {"Ingress/gateway-grpc", "Ingress/gateway-http"}


def _objects_of(files: Files, path: str) -> dict[str, Any]:
    return objects(files, path) if path.endswith(".yaml") and not path.endswith("kustomization.yaml") else {}


def test_keys_are_mounted_from_a_secret_in_the_gateway_alone() -> None:
    files = export("with: {protocol: [grpc, http]}\ngateway: {keys: keys.json}\nexecutors: [{name: a, uses: X}]")
    found = objects(files, "base/gateway.yaml")
    spec = pod(next(each for name, each in found.items() if name.startswith("Deployment/")))
    (volume,) = [each for each in spec["volumes"] if each["name"] == "keys"]
    assert volume["secret"] == {"secretName": "flow-keys", "defaultMode": 0o440}
    (mount,) = [each for each in spec["containers"][0]["volumeMounts"] if each["name"] == "keys"]
    assert mount == {"name": "keys", "mountPath": "/etc/flowdex-keys", "readOnly": True}
    assert sum("flow-keys" in text for text in files.values()) == 1
