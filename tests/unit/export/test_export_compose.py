"""docker-compose.yml: the committed one, what every one must be, and each thing that an export may add."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.resources import files as resources
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from flowdex.cli.main import main
from flowdex.errors import ConfigurationError
from flowdex_orchestrator.export import make_deployment
from flowdex_orchestrator.export.compose import ADDITIONS, Compose, render_compose
from flowdex_orchestrator.export.folder import LIST
from flowdex_orchestrator.flow import load_flow, parse_flow

ROOT = Path(__file__).resolve().parents[3]
EMBEDDED = {"embedded": True, "uri": "edge://.flowdex/index"}
COMMAND = "flowdex export docker-compose flow.yml -o docker-compose.yml --build . --with qdrant --with monitoring"
MINIMAL = "jtype: Flow\nwith: {protocol: [grpc, http]}\nexecutors: [{name: a, uses: X}]\n"
REMOTE = "jtype: Flow\nexecutors:\n- {name: a, uses: X, uses_with: {uri: $URL, api_key: $QDRANT_API_KEY}}\n"


def default(*additions: str, build: str | None = None) -> Compose:
    text = (ROOT / "flow.yml").read_text(encoding="utf-8")
    deployment = make_deployment(load_flow(ROOT / "flow.yml"), text, {2: EMBEDDED}, environment={})
    return render_compose(deployment, additions=additions, build=build, folder="./docker-compose")


def of(text: str, facts: Mapping[str, Any] | None = None, *additions: str, **env: str) -> Compose:
    deployment = make_deployment(parse_flow(text, file="flow.yml", env=env), text, {0: facts or {}}, environment=env)
    return render_compose(deployment, additions=additions)


def stack(made: Compose) -> Any:
    return yaml.safe_load(made.text)


def test_the_committed_stack_is_that_of_the_default_flow() -> None:
    made = default(*ADDITIONS, build=".")
    assert (ROOT / "docker-compose.yml").read_text(encoding="utf-8") == made.text, f"run: {COMMAND}"
    folder = ROOT / "docker-compose"
    committed = {
        str(path.relative_to(folder)): path.read_text(encoding="utf-8")
        for path in folder.rglob("*")
        if path.is_file() and path.name != LIST
    }
    assert committed == made.files, f"run: {COMMAND}"


# ---- what every stack must be ----

STACKS = {
    "committed": lambda: default(*ADDITIONS, build="."),
    "plain": default,
    "minimal": lambda: of(MINIMAL),
    "monitored": lambda: of(MINIMAL, None, "monitoring"),
    "remote": lambda: of(REMOTE, {"uri": "grpc://qdrant:6334"}, "qdrant", URL="grpc://qdrant:6334", QDRANT_API_KEY="k"),
}


@pytest.fixture(params=STACKS, scope="module")
def made(request: pytest.FixtureRequest) -> Compose:
    return STACKS[request.param]()


def test_it_is_what_the_specification_allows(made: Compose) -> None:
    pytest.importorskip("check_jsonschema", reason="check-jsonschema, which has the Compose Specification, is missing")
    import jsonschema

    place = resources("check_jsonschema") / "builtin_schemas/vendor/compose-spec.json"
    schema = json.loads(place.read_text(encoding="utf-8"))
    jsonschema.validate(stack(made), schema)
    wrong = stack(made)
    wrong["services"]["gateway"]["read_ony"] = True
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, schema)


def test_names_that_it_uses_are_names_that_it_has(made: Compose) -> None:
    found = stack(made)
    services, volumes, networks = found["services"], found.get("volumes", {}), found.get("networks", {})
    used: set[str] = set()
    for name, each in services.items():
        assert set(each.get("depends_on", ())) <= services.keys() - {name}
        assert set(each.get("networks", ())) <= {"default", *networks}
        for mount in each.get("volumes", ()):
            source, _, target = mount.partition(":")
            assert target.startswith("/")
            if source.startswith("./"):
                assert target.endswith(":ro")
                below = source.removeprefix("./docker-compose/").removeprefix("./compose/")
                assert source == "./flow.yml" or any(
                    path == below or path.startswith(f"{below}/") for path in made.files
                )
            else:
                used.add(source)
    assert used == volumes.keys()
    mounted = {mount.split(":")[0] for each in services.values() for mount in each.get("volumes", ())}
    for path in made.files:
        assert any(f"/{path}".startswith(f"/{source.split('/', 2)[-1]}") for source in mounted), (
            f"{path} is not mounted"
        )


def test_ports_are_those_of_this_machine_and_no_two_the_same(made: Compose) -> None:
    ports = [port for each in stack(made)["services"].values() for port in each.get("ports", ())]
    assert all(re.fullmatch(r"127\.0\.0\.1:(\d+):\1", port) for port in ports)
    assert len(ports) == len(set(ports))
    assert "ports" not in stack(made)["services"].get("qdrant", {})


def test_every_service_is_confined_pinned_and_checked(made: Compose) -> None:
    for name, each in stack(made)["services"].items():
        assert each["read_only"] is True, name
        assert each["cap_drop"] == ["ALL"], name
        assert each["security_opt"] == ["no-new-privileges:true"], name
        assert not {"privileged", "user", "network_mode", "pid", "cap_add"} & each.keys(), name
        assert re.search(r":v?\d+\.\d+\.\d+", each["image"]), name
        assert each["healthcheck"]["test"][0] == "CMD", name
        assert each["restart"] == "unless-stopped", name


def test_variables_have_a_value_or_say_what_is_missing(made: Compose) -> None:
    for reference in re.findall(r"(?<!\$)\$\{[^}]*\}?|(?<!\$)\$\w+", made.text):
        assert re.fullmatch(r"\$\{[A-Z][A-Z0-9_]*(:-[^}]*|:\?[^}]+)\}", reference), reference


def test_commands_are_those_of_a_cluster() -> None:
    services = stack(default(*ADDITIONS, build="."))["services"]
    for name in ("gateway", "segmenter", "encoder", "indexer", "ranker"):
        objects = yaml.safe_load_all((ROOT / f"k8s/base/{name}.yaml").read_text(encoding="utf-8"))
        (pod,) = (each["spec"]["template"]["spec"] for each in objects if each["kind"] in ("Deployment", "StatefulSet"))
        (container,) = pod["containers"]
        assert services[name]["command"] == container["args"]
        assert services[name]["image"] == container["image"]
        port = 52000 if name != "gateway" else 51000
        assert services[name]["healthcheck"]["test"][-1] == f"grpc://127.0.0.1:{port}"
        assert container["ports"][0]["containerPort"] == port


def test_images_are_built_from_targets_of_the_dockerfile() -> None:
    targets = set(re.findall(r"^FROM \S+ AS (\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE))
    arguments = set(re.findall(r"^ARG (\w+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE))
    services = stack(default(*ADDITIONS, build="."))["services"]
    built = {name: each["build"] for name, each in services.items() if "build" in each}
    assert built.keys() == {"gateway", "segmenter", "encoder", "indexer", "ranker"}
    for name, each in built.items():
        assert each["context"] == "."
        assert each["target"] in targets
        assert set(each["args"]) <= arguments
        assert services[name]["image"].startswith(f"flowdex-{each['target']}:")
    own = "jtype: Flow\nexecutors: [{name: a, uses: X, kubernetes: {image: 'mine:1'}}]\n"
    deployment = make_deployment(parse_flow(own), own, {}, environment={})
    services = stack(render_compose(deployment, build="."))["services"]
    assert "build" in services["gateway"]
    assert "build" not in services["a"], "the image of somebody else is not in our Dockerfile"


# ---- additions ----


def test_with_qdrant_the_index_is_on_the_server() -> None:
    made = default("qdrant")
    services = stack(made)["services"]
    indexer, server = services["indexer"], services["qdrant"]
    assert set(indexer["networks"]) == {"default", "index"}
    assert server["networks"] == ["index"]
    assert stack(made)["networks"]["index"] == {"internal": True}
    assert indexer["environment"]["QDRANT_API_KEY"] == server["environment"]["QDRANT__SERVICE__API_KEY"]
    for name in ("gateway", "segmenter", "encoder", "ranker"):
        assert services[name]["environment"]["QDRANT_API_KEY"] == "withheld"
        assert "networks" not in services[name]
    assert "indexer-index" not in stack(made)["volumes"]
    flow = parse_flow(made.files["flow.yml"], env={"QDRANT_API_KEY": "k"})
    assert flow.executor("indexer").uses_with["uri"] == "grpc://qdrant:6334"
    for name in ("gateway", "segmenter", "encoder", "indexer", "ranker"):
        assert services[name]["volumes"][0] == "./docker-compose/flow.yml:/etc/flowdex/flow.yml:ro"
    images = re.findall(r"image: (qdrant\S+)", (ROOT / "k8s/components/qdrant/qdrant.yaml").read_text())
    assert images == [server["image"]]


def test_a_flow_that_names_the_server_keeps_its_file() -> None:
    made = STACKS["remote"]()
    assert made.files == {}
    services = stack(made)["services"]
    assert services["a"]["volumes"][0].startswith("./flow.yml:")
    assert services["a"]["environment"]["QDRANT_API_KEY"] == "${QDRANT_API_KEY:-local}"
    assert services["a"]["depends_on"] == ["qdrant"]


def test_with_monitoring_the_dashboard_is_that_of_a_cluster() -> None:
    made = default("monitoring")
    dashboard = made.files["grafana/dashboards/flowdex.json"]
    assert dashboard == (ROOT / "k8s/components/monitoring/dashboard.json").read_text(encoding="utf-8")
    configuration = yaml.safe_load(made.files["prometheus.yml"])
    constants = {each["name"]: each for each in json.loads(dashboard)["templating"]["list"]}
    names = []
    for job in configuration["scrape_configs"]:
        (relabelled,) = job["relabel_configs"]
        assert relabelled == {"target_label": "namespace", "replacement": constants["namespace"]["query"]}
        (found,) = job["dns_sd_configs"]
        command = stack(made)["services"][job["job_name"]]["command"]
        assert command[command.index("--metrics-port") + 1] == str(found["port"])
        names += found["names"]
    assert names == ["gateway", "segmenter", "encoder", "indexer", "ranker"]
    assert configuration["rule_files"] == ["alerts.yml"]
    assert any(mount.endswith("/alerts.yml:ro") for mount in stack(made)["services"]["prometheus"]["volumes"])
    (cluster,) = yaml.safe_load_all((ROOT / "k8s/components/monitoring/alerts.yaml").read_text(encoding="utf-8"))
    assert yaml.safe_load(made.files["alerts.yml"]) == cluster["spec"], "the alerts are those of a cluster, too"
    (source,) = yaml.safe_load(made.files["grafana/provisioning/datasources/prometheus.yml"])["datasources"]
    assert source["url"] == "http://prometheus:9090"
    assert source["type"] == constants["datasource"]["query"]
    (provider,) = yaml.safe_load(made.files["grafana/provisioning/dashboards/flowdex.yml"])["providers"]
    mounts = [mount.split(":")[1] for mount in stack(made)["services"]["grafana"]["volumes"]]
    assert provider["options"]["path"] in mounts


@pytest.mark.skipif(shutil.which("bash") is None, reason="the check of the server's health is a line of bash")
@pytest.mark.parametrize(("status", "healthy"), [(200, True), (503, False), (None, False)])
def test_the_health_of_the_server_is_what_it_answers(status: int | None, healthy: bool) -> None:
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            assert self.path == "/readyz"
            self.send_response(status or 0)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.handle_request, daemon=True)
        if status is None:
            server.server_close()
        else:
            thread.start()
        kind, *command = stack(default("qdrant"))["services"]["qdrant"]["healthcheck"]["test"]
        assert kind == "CMD"
        command[-1] = command[-1].replace("/6333", f"/{server.server_port}")
        done = subprocess.run(command, capture_output=True, timeout=10, check=False)
    assert (done.returncode == 0) is healthy


@pytest.mark.parametrize(
    ("text", "addition", "words"),
    [
        (MINIMAL, "qdrant", "no executor of 'flowdex' would use a Qdrant server"),
        (MINIMAL.replace("name: a", "name: grafana"), "monitoring", "'grafana' is also a service"),
    ],
)
def test_what_cannot_be_added_is_said(text: str, addition: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        of(text, None, addition)


# ---- the command ----


@pytest.fixture
def flow_file(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "flow.yml"
    path.write_text(
        "jtype: Flow\nwith: {protocol: [grpc, http]}\nexecutors: [{name: a, uses: flowdex_executors.Ranker}]\n"
    )
    yield path


def run(*arguments: str) -> Any:
    return CliRunner().invoke(main, ["export", "docker-compose", *arguments])


def test_the_command_writes_the_file_and_its_folder(flow_file: Path) -> None:
    out = flow_file.with_name("stack.yml")
    done = run(str(flow_file), "-o", str(out), "--with", "monitoring", "--build", str(ROOT))
    assert done.exit_code == 0, done.output
    found = yaml.safe_load(out.read_text())
    context = found["services"]["a"]["build"]["context"]
    assert not Path(context).is_absolute()
    assert (out.parent / context).resolve() == ROOT
    for each in ("prometheus", "grafana"):
        for mount in found["services"][each]["volumes"]:
            source = mount.split(":")[0]
            assert not source.startswith(".") or (out.parent / source).exists()
    done = run(str(flow_file), "-o", str(out))
    assert done.exit_code == 0, done.output
    assert not list((out.parent / "stack").rglob("*.yml")), "what is not mounted any more is removed"


def test_files_beside_need_a_place(flow_file: Path) -> None:
    done = run(str(flow_file), "--with", "monitoring")
    assert done.exit_code == 1
    assert "say where with -o" in done.output


def test_what_must_be_set_is_said(tmp_path: Path) -> None:
    flow = tmp_path / "flow.yml"
    flow.write_text("jtype: Flow\nexecutors: [{name: a, uses: flowdex_executors.Ranker, env: {X: $MY_TOKEN}}]\n")
    done = CliRunner().invoke(main, ["export", "docker-compose", str(flow)], env={"MY_TOKEN": "hush"})
    assert done.exit_code == 0, done.output
    assert "in .env beside the file: MY_TOKEN" in done.stderr
    assert "hush" not in done.output


def test_keys_are_mounted_in_the_gateway_alone() -> None:
    made = stack(
        of("jtype: Flow\nwith: {protocol: [grpc, http]}\ngateway: {keys: keys.json}\nexecutors: [{name: a, uses: X}]\n")
    )
    mounted = {
        name: [each for each in service["volumes"] if "keys" in each] for name, service in made["services"].items()
    }
    assert mounted == {"gateway": ["./keys.json:/etc/flowdex-keys/keys.json:ro"], "a": []}
