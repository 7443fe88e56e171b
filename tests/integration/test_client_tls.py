"""grpcs:// and https:// against a server with a certificate of its own authority."""

from __future__ import annotations

import http.server
import shutil
import ssl
import subprocess
import threading
from pathlib import Path

import grpc
import pytest

from flowdex import Client, ConfigurationError, Unauthenticated

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl command")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    key, pem = folder / "key.pem", folder / "cert.pem"
    command = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    )
    subprocess.run([*command.split(), "-keyout", key, "-out", pem], check=True, capture_output=True, timeout=60)
    return key, pem


def test_grpcs(certificate: tuple[Path, Path]) -> None:
    from concurrent.futures import ThreadPoolExecutor

    key, pem = certificate
    server = grpc.server(ThreadPoolExecutor(1))
    check = {"Check": grpc.unary_unary_rpc_method_handler(lambda request, context: b"\x08\x01")}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("grpc.health.v1.Health", check),))
    credentials = grpc.ssl_server_credentials([(key.read_bytes(), pem.read_bytes())])
    port = server.add_secure_port("localhost:0", credentials)
    server.start()
    try:
        with Client(f"grpcs://localhost:{port}", ca=pem) as client:
            assert client.is_ready()
        with Client(f"grpcs://localhost:{port}") as client:  # an authority nobody knows
            with pytest.raises(Unauthenticated, match=r"not trusted: .*; name the authority that signed it"):
                client.encode(["a"])
            with pytest.raises(Unauthenticated):  # to wait would not help
                client.is_ready()
    finally:
        server.stop(0)


def test_https(certificate: tuple[Path, Path]) -> None:
    key, pem = certificate

    class Ready(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/flow/health/ready" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("localhost", 0), Ready)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f"https://localhost:{server.server_address[1]}/flow"
        with Client(url, ca=pem) as client:
            assert client.is_ready()
        with Client(url) as client, pytest.raises(Unauthenticated, match="not trusted"):
            client.is_ready()
    finally:
        server.shutdown()
        server.server_close()


def test_a_missing_certificate_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"none\.pem: no such file"):
        Client("grpcs://localhost:1", ca=tmp_path / "none.pem")


def test_a_file_that_is_no_certificate(tmp_path: Path) -> None:
    (tmp_path / "x.pem").write_text("hello")
    with pytest.raises(ConfigurationError, match="PEM"):
        Client("https://localhost:1", ca=tmp_path / "x.pem")
