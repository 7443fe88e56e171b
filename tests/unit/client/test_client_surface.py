"""The public surface: light imports, one implementation with two faces, addresses, and errors from HTTP answers."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import flowdex
from flowdex import AsyncClient, Client, errors
from flowdex.errors import ConfigurationError, FlowdexError, InvalidInput
from flowdex.transport.problems import error_from_problem
from flowdex.transport.target import Target


def imported_by(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys, json; print(json.dumps(sorted(sys.modules)))"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_importing_flowdex_imports_nothing_else() -> None:
    assert {name for name in imported_by("import flowdex") if name.startswith("flowdex.")} == set()


def test_the_client_needs_no_heavy_package() -> None:
    loaded = imported_by(
        "import flowdex, flowdex.readers, flowdex.cli.search\nfor name in flowdex.__all__: getattr(flowdex, name)"
    )
    assert not loaded & {"jina", "docarray", "torch", "transformers", "fastapi", "pydantic", "qdrant_client"}
    assert "httpx" not in loaded
    assert "rich" not in loaded


def test_every_public_name_is_there() -> None:
    for name in flowdex.__all__:
        assert getattr(flowdex, name) is not None
        assert name in dir(flowdex)
    every_error = {name for name in errors.__all__ if isinstance(getattr(errors, name), type)} - {"StatusMapping"}
    assert every_error <= set(flowdex.__all__)
    with pytest.raises(AttributeError, match="Cleint"):
        _ = flowdex.Cleint


def test_types_are_published() -> None:
    assert Path(flowdex.__file__).with_name("py.typed").exists()


def public(cls: type) -> dict[str, object]:
    return {name: value for name, value in vars(cls).items() if not name.startswith("_") or name == "__init__"}


def test_the_two_clients_have_the_same_methods() -> None:
    sync, asynchronous = public(Client), public(AsyncClient)
    assert set(sync) == set(asynchronous)
    for name, method in sync.items():
        if isinstance(method, property):
            continue
        other = asynchronous[name]
        assert inspect.iscoroutinefunction(other) or inspect.isasyncgenfunction(other) or name == "__init__"
        ours, theirs = inspect.signature(method), inspect.signature(other)
        assert list(ours.parameters) == list(theirs.parameters), name
        for parameter in ours.parameters.values():
            twin = theirs.parameters[parameter.name]
            assert (parameter.kind, parameter.default) == (twin.kind, twin.default), f"{name}({parameter.name})"
            # AsyncClient takes asynchronous iterables besides
            annotation = str(twin.annotation).replace(" | AsyncIterable[Any]", "")
            assert str(parameter.annotation) == annotation, f"{name}({parameter})"
        returned = re.sub(r"^AsyncGenerator\[(.*), None\]$", r"Iterator[\1]", str(theirs.return_annotation))
        assert ours.return_annotation == returned, name
        assert method.__doc__ or name == "__init__", name


# ---- addresses ----


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("grpc://host:1", ("grpc", "host", 1, "")),
        ("host:1", ("grpc", "host", 1, "")),
        ("host", ("grpc", "host", 51000, "")),
        ("grpcs://host", ("grpcs", "host", 443, "")),
        ("http://host", ("http", "host", 80, "")),
        ("https://host/flow/", ("https", "host", 443, "/flow")),
        ("grpc://[::1]:5", ("grpc", "::1", 5, "")),
        (" GRPC://Host:7/ ", ("grpc", "host", 7, "")),
    ],
)
def test_addresses(text: str, expected: tuple[str, str, int, str]) -> None:
    target = Target.parse(text)
    assert (target.scheme, target.host, target.port, target.path) == expected


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("ws://host:1", "unknown scheme 'ws'"),
        ("grpc://", "no host"),
        ("grpc://host:port", "cannot be used"),
        ("grpc://host:99999", "cannot be used"),
        ("grpc://host:1/path", "nothing may follow"),
        ("http://user:secret@host", "credentials go into api_key"),
    ],
)
def test_wrong_addresses(text: str, match: str) -> None:
    with pytest.raises(ConfigurationError, match=match):
        Client(text)


def test_addresses_and_keys_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLOWDEX_URL", raising=False)
    assert str(Target.parse()) == "grpc://127.0.0.1:51000"
    monkeypatch.setenv("FLOWDEX_URL", "http://other:1")
    monkeypatch.setenv("FLOWDEX_API_KEY", "k")
    assert str(Target.parse()) == "http://other:1"
    assert Target.parse().headers == {"authorization": "Bearer k"}
    assert Target.parse(api_key="mine").headers == {"authorization": "Bearer mine"}
    assert Target.parse(headers={"Authorization": "Basic x"}).headers == {"authorization": "Basic x"}


def test_wrong_client_options() -> None:
    with pytest.raises(InvalidInput, match="timeout"):
        Client(timeout=0)
    with pytest.raises(InvalidInput, match="retries"):
        Client(retries=-1)


def test_making_a_client_connects_to_nothing_and_starts_no_thread() -> None:
    import threading

    before = threading.active_count()
    assert repr(Client("grpc://10.255.255.1:1")) == "Client('grpc://10.255.255.1:1')"
    assert threading.active_count() == before


# ---- errors from HTTP ----


def test_every_error_survives_http() -> None:
    for name in errors.__all__:
        cls = getattr(errors, name)
        if not isinstance(cls, type) or not issubclass(cls, FlowdexError) or cls in (FlowdexError, ConfigurationError):
            continue
        problem = {"type": f"urn:flowdex:error:{name}", "detail": "why", "executor": "encoder"}
        error = error_from_problem(cls.status.http, problem, retry_after=2.0)
        assert type(error) is cls
        assert (error.message, error.executor, error.retry_after) == ("why", "encoder", 2.0)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (422, "InvalidInput"),
        (400, "InvalidInput"),
        (401, "Unauthenticated"),
        (404, "NotFound"),
        (413, "TooLarge"),
        (429, "Overloaded"),
        (500, "InternalError"),
        (502, "Unavailable"),
        (503, "Unavailable"),
        (504, "DeadlineExceeded"),
    ],
)
def test_answers_without_a_problem_document(status: int, expected: str) -> None:
    error = error_from_problem(status, None)
    assert error.name == expected
    assert str(status) in error.message
