"""What the contracts share: inputs, names of parameters, the shapes of errors, the choice of a model."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from flowdex.errors import NotFound
from flowdex_orchestrator.gateway.http.compat import openai, rerank, tei
from flowdex_orchestrator.gateway.http.compat.contract import Inputs, input_documents, path_of
from flowdex_orchestrator.gateway.http.compat.served import Served, choose
from flowdex_orchestrator.gateway.http.problems import Failure

INPUTS: TypeAdapter[list[Any]] = TypeAdapter(Inputs)
one = st.text(min_size=1).filter(str.strip) | st.lists(st.integers(0, 2**31 - 1), min_size=1)


@given(st.lists(one, min_size=1).filter(lambda items: not all(isinstance(item, int) for item in items)))
def test_a_list_of_inputs_stays_as_it_is(items: list[Any]) -> None:
    assert INPUTS.validate_python(items) == items


@given(one)
def test_one_input_stands_for_a_list(item: Any) -> None:
    assert INPUTS.validate_python(item) == [item]


@pytest.mark.parametrize(
    ("value", "where"),
    [
        (5, ()),
        (None, ()),
        ({}, ()),
        ("", (0,)),
        (["a", " "], (1,)),
        (["a", 1], (1,)),
        ([1, "a"], (0,)),
        ([[]], (0,)),
        ([[1, True]], (0,)),
        ([[-1]], (0,)),
        ([[2**31]], (0,)),
        ([[1.0]], (0,)),
    ],
)
def test_wrong_inputs_are_named(value: Any, where: tuple[int, ...]) -> None:
    with pytest.raises(ValidationError) as caught:
        INPUTS.validate_python(value)
    assert caught.value.errors()[0]["loc"] == where


def test_inputs_become_documents() -> None:
    batch = input_documents(["text", [101, 102]])
    assert batch.texts == ["text", None]
    text, ids = batch.column("token_ids")
    assert text is None
    assert (ids.dtype, ids.tolist()) == (np.int32, [101, 102])
    assert "token_ids" not in input_documents(["only", "texts"]).fields()


@pytest.mark.parametrize(
    ("pointer", "path"), [("#/input/3", "input[3]"), ("#/input", "input"), ("#/a/b/0", "a.b[0]"), ("#", "")]
)
def test_names_of_parameters(pointer: str, path: str) -> None:
    assert path_of(pointer) == path


def failure(status: int, name: str, **more: Any) -> Failure:
    return Failure(status, name, "Title", "what is wrong", {"Retry-After": "1"}, more)


@pytest.mark.parametrize(
    ("name", "ours", "status", "kind", "code"),
    [
        ("InvalidInput", 422, 400, "invalid_request_error", None),
        ("InvalidInput", 405, 405, "invalid_request_error", None),
        ("InvalidInput", 415, 415, "invalid_request_error", None),
        ("TooLarge", 413, 413, "invalid_request_error", "request_too_large"),
        ("NotFound", 404, 404, "invalid_request_error", "model_not_found"),
        ("Overloaded", 429, 429, "requests", "rate_limit_exceeded"),
        ("Unavailable", 503, 503, "server_error", "service_unavailable"),
        ("DeadlineExceeded", 504, 504, "server_error", "timeout"),
        ("ExecutorError", 500, 500, "server_error", None),
        ("InternalError", 500, 500, "server_error", None),
    ],
)
def test_errors_as_openai_writes_them(name: str, ours: int, status: int, kind: str, code: str | None) -> None:
    reply = openai.write_error(failure(ours, name))
    error = json.loads(reply.body)["error"]
    assert (reply.status_code, error["type"], error["code"]) == (status, kind, code)
    assert error["message"] == "what is wrong"
    assert reply.headers["retry-after"] == "1"


def test_openai_names_the_parameter() -> None:
    errors = [{"pointer": "#/input/1", "detail": "must not be blank"}]
    error = json.loads(openai.write_error(failure(422, "InvalidInput", errors=errors)).body)["error"]
    assert error["param"] == "input[1]"


@pytest.mark.parametrize(
    ("name", "ours", "status", "kind"),
    [
        ("InvalidInput", 422, 422, "Validation"),
        ("InvalidInput", 400, 400, "Validation"),
        ("TooLarge", 413, 413, "Validation"),
        ("Unauthenticated", 401, 401, "Validation"),
        ("Overloaded", 429, 429, "Overloaded"),
        ("Unavailable", 503, 503, "Unhealthy"),
        ("ExecutorError", 500, 424, "Backend"),
        ("DeadlineExceeded", 504, 424, "Backend"),
    ],
)
def test_errors_as_tei_writes_them(name: str, ours: int, status: int, kind: str) -> None:
    reply = tei.write_error(failure(ours, name))
    assert reply.status_code == status
    assert json.loads(reply.body) == {"error": "what is wrong", "error_type": kind}


def test_errors_as_rerankers_write_them() -> None:
    for write, status in ((rerank.write_jina_error, 422), (rerank.write_cohere_error, 400)):
        reply = write(failure(422, "InvalidInput"))
        assert reply.status_code == status
        assert json.loads(reply.body) == {"detail": "what is wrong", "message": "what is wrong"}
        assert write(failure(429, "Overloaded")).status_code == 429
        assert write(failure(413, "TooLarge")).status_code == 413


def test_models_are_chosen_by_either_name() -> None:
    first, second = Served(("minilm", "shared"), "a"), Served(("shared", "big"), "b")
    assert choose([first, second], None) is first
    assert choose([first, second], "minilm") is first
    assert choose([first, second], "shared") is second, "an executor's own name goes first"
    assert choose([first, second], "big") is second
    assert choose([], "anything") == Served(), "the router knows better what is missing"
    with pytest.raises(NotFound, match="'minilm', 'shared', 'big'"):
        choose([first, second], "small")
