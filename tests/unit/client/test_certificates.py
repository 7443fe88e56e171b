"""Certificate files: what is refused and how, and that a renewed pair is taken over whole or not at all."""

from __future__ import annotations

import logging
import os
import subprocess
import threading
import time
from datetime import timedelta
from pathlib import Path

import pytest

from flowdex import ConfigurationError
from flowdex.certificates import CertificateFileError, CertificateFiles
from flowdex.transport.target import Target
from flowdex_orchestrator.development_ca import Authority

AUTHORITY = Authority.make("test")
NAMES = ["localhost", "127.0.0.1"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    AUTHORITY.pair.write(tmp_path, "ca")
    AUTHORITY.issue("server", NAMES, server=True).write(tmp_path, "server")
    AUTHORITY.issue("client", client=True).write(tmp_path, "client")
    return tmp_path


def files(folder: Path, name: str = "server", *, server: bool = True) -> CertificateFiles:
    return CertificateFiles(
        ca=folder / "ca.pem", certificate=folder / f"{name}.pem", key=folder / f"{name}.key", server=server
    )


def test_what_a_certificate_says(folder: Path) -> None:
    found = files(folder)
    assert found.names == ("DNS:localhost", "IP Address:127.0.0.1")
    assert found.expires_in == pytest.approx(365 * 86400, abs=60)
    assert found.current().key == (folder / "server.key").read_bytes()
    only_trust = CertificateFiles(ca=folder / "ca.pem")
    assert (only_trust.expires_in, only_trust.current().certificate) == (None, None)


def encrypted(folder: Path) -> None:
    command = ["openssl", "pkcs8", "-topk8", "-passout", "pass:secret", "-in", folder / "server.key", "-out"]
    subprocess.run([*command, folder / "encrypted.key"], check=True, capture_output=True)
    (folder / "encrypted.key").replace(folder / "server.key")


BROKEN = {
    "missing": (lambda f: (f / "server.key").unlink(), "key: .*server.key: no such file or directory"),
    "a folder": (lambda f: ((f / "ca.pem").unlink(), (f / "ca.pem").mkdir()), "ca: .*ca.pem: is a directory"),
    "other key": (
        lambda f: (f / "client.key").replace(f / "server.key"),
        r"key: .*server.key: is not the key of .*server.pem",
    ),
    "no certificate": (
        lambda f: (f / "server.pem").write_text("hello"),
        "certificate: .*server.pem: holds no certificate in PEM form",
    ),
    "no key": (
        lambda f: (f / "server.key").write_bytes((f / "server.pem").read_bytes()),
        "key: .*server.key: holds no private key in PEM form",
    ),
    "cut off": (
        lambda f: (f / "server.pem").write_bytes((f / "server.pem").read_bytes()[:200]),
        "certificate: .*server.pem.*cannot be used",
    ),
    "no authority": (lambda f: (f / "ca.pem").write_text("hello"), "ca: .*ca.pem: holds no certificates in PEM form"),
    "expired": (
        lambda f: AUTHORITY.issue("s", NAMES, server=True, ended=timedelta(days=1)).write(f, "server"),
        "certificate: .*server.pem: certificate has expired",
    ),
    "a client's": (
        lambda f: AUTHORITY.issue("s", NAMES, client=True).write(f, "server"),
        "certificate: .*server.pem: unsuitable certificate purpose|unsupported certificate purpose",
    ),
    "encrypted": (encrypted, "key: .*server.key: is encrypted; give a key without a passphrase"),
    "huge": (lambda f: (f / "ca.pem").write_bytes(b"x" * (2 << 20)), "ca: .*more than 1,048,576 bytes"),
}


@pytest.mark.parametrize("how", BROKEN)
def test_what_is_refused(folder: Path, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowdex.certificates._WRITTEN_WITHIN", 0.0)
    spoil, message = BROKEN[how]
    spoil(folder)  # type: ignore[no-untyped-call]
    with pytest.raises(CertificateFileError, match=f"^({message})"):
        files(folder)


@pytest.mark.parametrize("alone", ["certificate", "key"])
def test_half_a_pair_is_refused(folder: Path, alone: str) -> None:
    with pytest.raises(CertificateFileError, match="not named"):
        CertificateFiles(**{alone: folder / "server.pem"})  # type: ignore[arg-type]


def test_a_renewed_pair_is_taken_over(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    found = files(folder)
    before = found.current()
    assert found.current() == before
    with caplog.at_level(logging.INFO):
        AUTHORITY.issue("server", NAMES, server=True).write(folder, "server")
        after = found.current()
    assert after != before and after.certificate == (folder / "server.pem").read_bytes()
    assert found.generation == 2
    assert "took over renewed certificate files" in caplog.text


def test_a_half_written_pair_waits_until_it_fits(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    found = files(folder)
    before = found.current()
    renewed = AUTHORITY.issue("server", NAMES, server=True)
    (folder / "server.key").write_bytes(renewed.key)
    assert found.current() == before
    (folder / "server.pem").write_bytes(renewed.certificate[:100])
    assert found.current() == before
    (folder / "server.pem").unlink()
    assert found.current() == before
    assert found.generation == 1
    assert "the certificate in use stays" in caplog.text
    (folder / "server.pem").write_bytes(renewed.certificate)
    assert found.current().certificate == renewed.certificate


def test_who_comes_just_at_the_renewal_waits_a_moment(folder: Path) -> None:
    renewed = AUTHORITY.issue("server", NAMES, server=True)
    (folder / "server.key").write_bytes(renewed.key)
    timer = threading.Timer(0.2, (folder / "server.pem").write_bytes, [renewed.certificate])
    timer.start()
    assert files(folder).current().certificate == renewed.certificate
    timer.join()


def test_the_same_refusal_is_logged_once(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    found = files(folder)
    (folder / "server.key").write_text("hello")
    for _ in range(20):
        found.current()
    assert len(caplog.records) == 1


def test_a_write_within_the_clocks_resolution_is_seen(folder: Path) -> None:
    """Same size, same inode, same time: only reading tells, as long as the file is young."""
    found = files(folder)
    while True:
        renewed = AUTHORITY.issue("server", NAMES, server=True)
        if len(renewed.certificate) == (folder / "server.pem").stat().st_size:
            break
    for name, content in (("server.pem", renewed.certificate), ("server.key", renewed.key)):
        stat = (folder / name).stat()
        (folder / name).write_bytes(content)
        os.utime(folder / name, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert found.current().certificate == renewed.certificate


def test_files_that_rest_are_not_read(folder: Path) -> None:
    found = files(folder)
    long_ago = time.time() - 60
    for file in folder.iterdir():
        os.utime(file, (long_ago, long_ago))
    known = found.current()
    assert found.current() is known  # read, it would be an equal one


def test_the_coming_end_is_logged_once(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    AUTHORITY.issue("server", NAMES, server=True, valid=timedelta(days=13)).write(folder, "server")
    found = files(folder)
    for _ in range(5):
        found.current()
    assert [record.getMessage() for record in caplog.records] == [
        f"the certificate {folder / 'server.pem'} expires in 13.0 days: renew it"
    ]


def test_the_environment_names_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, file in (("CA", "ca.pem"), ("CERTIFICATE", "client.pem"), ("KEY", "client.key")):
        monkeypatch.setenv(f"FLOWDEX_{name}", str(folder / file))
    target = Target.parse("grpcs://localhost")
    assert target.certificates is not None and target.certificates.certificate == folder / "client.pem"
    assert Target.parse("grpc://localhost").certificates is None
    with pytest.raises(ConfigurationError, match="no encryption"):
        Target.parse("grpc://localhost", ca=folder / "ca.pem")
