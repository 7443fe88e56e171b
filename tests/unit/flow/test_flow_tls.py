"""`tls` in a flow file: mistakes of the file and of the files it names point at the line."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

import pytest

from flowdex_orchestrator.development_ca import Authority
from flowdex_orchestrator.flow import load_flow
from flowdex_orchestrator.flow.certificates import executor_files, gateway_files, hop_files
from flowdex_orchestrator.flow.check import check_flow
from flowdex_orchestrator.flow.findings import FlowFileError

AUTHORITY = Authority.make("test")
FLOW = """\
jtype: Flow
with:
  tls: {certificate: flow.pem, key: flow.key, ca: ca.pem}
gateway:
  tls:
    certificate: gateway.pem
    key: gateway.key
    client_ca: ca.pem
executors:
  - {name: one, uses: a.B}
  - {name: two, uses: a.B, external: true, port: 5000, host: example.org, tls: {ca: ca.pem}}
  - {name: three, uses: a.B, external: true, port: 5000, host: example.org, tls: true}
  - {name: four, uses: a.B, external: true, port: 5000, host: example.org, tls: false}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    AUTHORITY.pair.write(tmp_path, "ca")
    AUTHORITY.issue("g", ["localhost", "127.0.0.1"], server=True).write(tmp_path, "gateway")
    AUTHORITY.issue("f", ["127.0.0.1"], server=True, client=True).write(tmp_path, "flow")
    (tmp_path / "flow.yml").write_text(FLOW)
    return tmp_path


def test_who_presents_and_trusts_what(folder: Path) -> None:
    flow = load_flow(folder / "flow.yml")
    gateway = gateway_files(flow)
    assert gateway is not None and (gateway.certificate, gateway.ca) == (folder / "gateway.pem", folder / "ca.pem")
    one, two, three, four = flow.executors
    served = executor_files(flow, one)
    assert served is not None and (served.certificate, served.ca) == (folder / "flow.pem", folder / "ca.pem")
    called = [hop_files(flow, each) for each in (one, two, three)]
    assert [each and (each.certificate, each.ca) for each in called] == [
        (folder / "flow.pem", folder / "ca.pem"),
        (None, folder / "ca.pem"),
        (None, None),
    ]
    assert hop_files(flow, four) is None
    assert not [each for each in check_flow(flow, ports=False, classes=False) if each.severity == "error"]


def test_mutual_tls_may_listen_on_the_network(folder: Path) -> None:
    """Whoever has no certificate does not get in: as good as keys."""
    for removed, errors in (("", 0), ("    client_ca: ca.pem\n", 1)):
        text = FLOW.replace(removed, "").replace("with:\n", "with:\n  host: 0.0.0.0\n")
        (folder / "flow.yml").write_text(text)
        found = check_flow(load_flow(folder / "flow.yml"), ports=False, classes=False)
        assert len([each for each in found if each.severity == "error"]) == errors, found


def test_executors_with_mutual_tls_may_listen_on_the_network(folder: Path) -> None:
    """A certificate alone is not enough: without `ca` anybody may call."""
    for removed, errors in (("", 0), (", ca: ca.pem}\ngateway", 1)):
        text = FLOW.replace(removed, "}\ngateway" if removed else "", 1)
        text = text.replace("{name: one, ", "{name: one, host: 0.0.0.0, ")
        (folder / "flow.yml").write_text(text)
        found = check_flow(load_flow(folder / "flow.yml"), ports=False, classes=False)
        assert [each.severity for each in found if "open the executor" in str(each)] == ["error"] * errors, found


WRONG_FILES = {
    "gateway.key": "flow.yml:7:5: gateway.tls.key: .*gateway.key: no such file or directory",
    "gateway.pem": "flow.yml:6:5: gateway.tls.certificate: .*gateway.pem: no such file or directory",
    "flow.key": "flow.yml:3:32: with.tls.key: .*flow.key: no such file or directory",
    "ca.pem": "flow.yml:8:5: gateway.tls.client_ca: .*ca.pem: no such file or directory",
}


@pytest.mark.parametrize("name", WRONG_FILES)
def test_a_missing_file_has_a_line(folder: Path, name: str) -> None:
    (folder / name).unlink()
    found = "\n".join(str(each) for each in check_flow(load_flow(folder / "flow.yml"), ports=False, classes=False))
    assert re.search(WRONG_FILES[name], found), found


def test_an_expired_certificate_has_a_line(folder: Path) -> None:
    AUTHORITY.issue("g", ["localhost"], server=True, ended=timedelta(days=2)).write(folder, "gateway")
    with pytest.raises(FlowFileError, match=r"flow.yml:6:5: gateway.tls.certificate: .*certificate has expired"):
        gateway_files(load_flow(folder / "flow.yml"))


def test_a_certificate_that_the_flow_itself_would_not_trust(folder: Path) -> None:
    AUTHORITY.issue("f", ["encoder"], server=True, client=True).write(folder, "flow")
    (found,) = check_flow(load_flow(folder / "flow.yml"), ports=False, classes=False)
    assert "with.tls.certificate" in str(found) and "at 127.0.0.1: " in str(found) and "not valid for" in str(found)
    Authority.make("other").issue("f", ["127.0.0.1"], server=True, client=True).write(folder, "flow")
    (found,) = check_flow(load_flow(folder / "flow.yml"), ports=False, classes=False)
    assert "would not trust it at 127.0.0.1: unable to get local issuer" in str(found)


MISTAKES = {
    "gateway: {tls: {certificate: a.pem}}": "gateway.tls.key: the key is missing",
    "gateway: {tls: {certificate: a.pem, key: a.key, cert: b}}": "unknown key",
    "gateway: {tls: true}": "gateway.tls: expected a mapping",
    "gateway: {tls: {certificate: a.pem, key: '-----BEGIN PRIVATE KEY-----'}}": "do not stand in a flow file",
    "with: {tls: {certificate: a.pem}}": "the key that belongs to the certificate is not named",
    "with: {tls: {ca: a.pem}}": "needs a certificate and its key",
}


@pytest.mark.parametrize("text", MISTAKES)
def test_mistakes(tmp_path: Path, text: str) -> None:
    (tmp_path / "flow.yml").write_text(f"jtype: Flow\n{text}\nexecutors: [{{name: a, uses: a.B}}]\n")
    with pytest.raises(FlowFileError, match=MISTAKES[text]):
        load_flow(tmp_path / "flow.yml")
