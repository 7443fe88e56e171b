"""A flow with TLS in containers: certificates are mounted where the flow file names them, and health checks get in."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from kubernetes_validate import validate

from flowdex_orchestrator.export import Deployment, make_deployment
from flowdex_orchestrator.export.compose import render_compose
from flowdex_orchestrator.export.kubernetes import render
from flowdex_orchestrator.flow import parse_flow

INNER = "tls: {certificate: tls/flow.pem, key: tls/flow.key, ca: tls/ca.pem}"
OUTER = "tls: {certificate: outer/gateway.pem, key: outer/gateway.key, ca: outer/ca.pem, client_ca: outer/clients.pem}"
FLOW = """\
jtype: Flow
with: {{protocol: [grpc, http]{inner}}}
{gateway}
executors: [{{name: my_encoder, uses: flowdex_executors.BertEncoder}}]
"""
BOTH = FLOW.format(inner=f", {INNER}", gateway=f"gateway: {{{OUTER}}}")


def deployment(text: str = BOTH) -> Deployment:
    return make_deployment(parse_flow(text, file="flow.yml"), text, {}, environment={})


def pod(files: dict[str, str], name: str) -> Any:
    for text in files.values():
        for each in yaml.safe_load_all(text) if text.startswith("#") else ():
            if each and each["kind"] in ("Deployment", "StatefulSet") and each["metadata"]["name"] == name:
                validate(each, "1.34", strict=True)
                return each["spec"]["template"]["spec"]
    raise AssertionError(name)


def sources(spec: Any) -> dict[str, dict[str, str]]:
    """Secret -> key -> path below the flow file's folder."""
    (volume,) = [each for each in spec["volumes"] if each["name"] == "flow"]
    assert volume["projected"]["defaultMode"] == 0o440
    assert volume["projected"]["sources"][0]["configMap"]["name"] == "flow"
    secrets = [each["secret"] for each in volume["projected"]["sources"][1:]]
    return {each["name"]: {item["key"]: item["path"] for item in each["items"]} for each in secrets}


def test_certificates_come_from_secrets() -> None:
    files = render(deployment())
    encoder, gateway = sources(pod(files, "my-encoder")), sources(pod(files, "gateway"))
    inner = {f"tls__{name}": f"tls/{name}" for name in ("flow.pem", "flow.key", "ca.pem")}
    assert encoder == {"flow-certificates": {**inner, "outer__ca.pem": "outer/ca.pem"}}
    assert gateway["flow-certificates"] == inner
    assert sorted(gateway["gateway-certificates"]) == [
        f"outer__{name}" for name in ("ca.pem", "clients.pem", "gateway.key", "gateway.pem")
    ]


def test_without_mutual_tls_an_executor_has_to_be_told_that_its_network_is_the_flows_own() -> None:
    one_sided = BOTH.replace(", ca: tls/ca.pem", "", 1)
    assert one_sided != BOTH
    for text, told in ((BOTH, False), (one_sided, True), (FLOW.format(inner="", gateway=""), True)):
        (encoder,) = deployment(text).executors
        assert ("--insecure" in encoder.arguments) is told


def test_an_executor_has_no_key_of_the_gateway() -> None:
    assert "gateway.key" not in str(pod(render(deployment()), "my-encoder"))


def test_probes_get_in() -> None:
    files = render(deployment())
    (encoder,), (gateway,) = (pod(files, name)["containers"] for name in ("my-encoder", "gateway"))
    inner = [f"--{option}=/etc/flowdex/tls/{name}" for option, name in (("ca", "ca.pem"), ("certificate", "flow.pem"))]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        command = encoder[probe]["exec"]["command"]
        assert command[:3] == ["env", "FLOWDEX_TLS_NAME=my-encoder", "flowdex"]
        assert command[-2:] == ["health", "grpcs://127.0.0.1:52000"]
        assert all(part in " ".join(command).replace(" /", "=/") for part in inner)
    command = gateway["startupProbe"]["exec"]["command"]
    assert command[-1] == "grpcs://127.0.0.1:51000"
    assert "/etc/flowdex/tls/flow.pem" in command  # clients must have a certificate
    assert gateway["livenessProbe"]["tcpSocket"] == gateway["readinessProbe"]["tcpSocket"] == {"port": "http"}


def test_calls_of_the_flow_itself() -> None:
    (encoder,) = pod(render(deployment()), "my-encoder")["containers"]
    values = {each["name"]: each.get("value") for each in encoder["env"]}
    assert values["FLOWDEX_URL"] == "grpcs://gateway:51000"
    assert values["FLOWDEX_CA"] == "/etc/flowdex/outer/ca.pem"
    assert values["FLOWDEX_KEY"] == "/etc/flowdex/tls/flow.key"


def test_compose() -> None:
    services = yaml.safe_load(render_compose(deployment()).text)["services"]
    encoder, gateway = services["my-encoder"], services["gateway"]
    assert {"./tls:/etc/flowdex/tls:ro", "./outer:/etc/flowdex/outer:ro"} <= set(gateway["volumes"])
    assert encoder["healthcheck"]["test"][:4] == ["CMD", "env", "FLOWDEX_TLS_NAME=my-encoder", "flowdex"]
    assert encoder["environment"]["FLOWDEX_URL"] == "grpcs://gateway:51000"


def test_what_the_operator_has_to_do() -> None:
    remarks = "\n".join(deployment().remarks)
    assert "my_encoder: its certificate must be for the name my-encoder" in remarks
    assert (
        "kubectl create secret generic gateway-certificates --from-file=outer__gateway.pem=outer/gateway.pem" in remarks
    )
    away = deployment(BOTH.replace("tls/flow.key", "/etc/keys/flow.key"))
    assert any("/etc/keys/flow.key: name certificates relative to the flow file" in each for each in away.remarks)


@pytest.mark.parametrize(
    ("inner", "gateway", "secrets"),
    [
        (f", {INNER}", "", {"gateway": ["flow-certificates"], "my-encoder": ["flow-certificates"]}),
        ("", f"gateway: {{{OUTER}}}", {"gateway": ["gateway-certificates"], "my-encoder": ["flow-certificates"]}),
    ],
)
def test_one_of_the_two(inner: str, gateway: str, secrets: dict[str, list[str]]) -> None:
    files = render(deployment(FLOW.format(inner=inner, gateway=gateway)))
    assert {name: list(sources(pod(files, name))) for name in secrets} == secrets
