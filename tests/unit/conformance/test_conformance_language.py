"""The language of recorded cases: patterns, paths, relations, variables, and what a file must be."""

from __future__ import annotations

import base64
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowdex.conformance.model import CaseResult, ContractResult, Problem, Report, Skipped
from flowdex.conformance.paths import NoSuchPlace, look_up
from flowdex.conformance.patterns import check_pattern, mismatches
from flowdex.conformance.recorded import Unfit, fill, read_file, recorded_files
from flowdex.conformance.relations import RELATIONS, holds
from flowdex.conformance.report import junit, verdict
from flowdex.conformance.suite import contracts
from flowdex.errors import ConfigurationError, InvalidInput

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(alphabet="abc <>~$|?", max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(alphabet="abc", max_size=3), inner, max_size=3),
    max_leaves=8,
)

# ---- patterns ----


@pytest.mark.parametrize(
    ("pattern", "fitting", "others"),
    [
        ("<integer 1..>", [1, 10**12], [0, 1.0, True, "1", None]),
        ("<number -1..1>", [-1, 0.5, 1], [1.01, math.inf, math.nan, False, "0"]),
        ("<number>", [0, -2.5], [None, math.nan]),
        ("<string|null>", ["", "a", None], [0, []]),
        ("<integer 0..|null>", [0, None], [-1]),
        ("<~^a+$>", ["aa"], ["b", "ab", 1, None]),
        ("<object>", [{}], [[], None]),
        ("<any>", [None, 0, []], []),
        ("text", ["text"], ["Text", None]),
        (True, [True], [1, "true"]),
        (1, [1, 1.0], [True, 2]),
        (None, [None], [0, ""]),
        ([1, "<any>"], [[1, 2]], [[1], [2, 2], {}]),
        ({"a": 1, "b?": "<string>"}, [{"a": 1}, {"a": 1, "b": "x", "c": 0}], [{}, {"a": 1, "b": 0}, []]),
        ({"a": "<absent>"}, [{}, {"b": 1}], [{"a": None}]),
        ({"<each>": "<integer>", "<length>": "<integer 1..2>"}, [[1], [1, 2]], [[], [1, 2, 3], ["1"], "12"]),
    ],
)
def test_patterns(pattern: Any, fitting: list[Any], others: list[Any]) -> None:
    check_pattern(pattern, "here")
    for value in fitting:
        assert not list(mismatches(pattern, value)), value
    for value in others:
        assert list(mismatches(pattern, value, "here")), value


def test_a_mismatch_names_its_place() -> None:
    (problem,) = mismatches({"data": {"<each>": {"index": "<integer>"}}}, {"data": [{"index": 0}, {"index": "1"}]})
    assert problem == Problem("data[1].index", "<integer>", '"1"')


@given(JSON)
def test_a_value_without_marks_is_its_own_pattern(value: Any) -> None:
    if not any(mark in json.dumps(value) for mark in ("<", "?")):
        check_pattern(value, "here")
        assert not list(mismatches(value, value))


@given(JSON, JSON)
def test_any_value_can_be_compared(pattern: Any, value: Any) -> None:
    try:
        check_pattern(pattern, "here")
    except ConfigurationError:
        return
    assert all(isinstance(each, Problem) for each in mismatches(pattern, value))


@pytest.mark.parametrize(
    "wrong", ["<strin>", "<string 1..>", "<~(>", "<integer a..>", {"<each>": 1, "a": 1}, ["<x y>"]]
)
def test_wrong_patterns(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match="here"):
        check_pattern(wrong, "here")


# ---- paths ----


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("", {"a": [{"b-c": 1}, {"b-c": 2}]}),
        ("a[1].b-c", 2),
        ("a[*].b-c", [1, 2]),
        ("a[0]", {"b-c": 1}),
    ],
)
def test_paths(path: str, expected: Any) -> None:
    assert look_up(path, {"a": [{"b-c": 1}, {"b-c": 2}]}) == expected


@pytest.mark.parametrize("path", ["b", "a[2]", "a[*].c", "a.b", "a[0].x.y", "[*]", "[0]"])
def test_paths_that_lead_nowhere(path: str) -> None:
    with pytest.raises(NoSuchPlace):
        look_up(path, {"a": [{"b": 1}, {"b": 2}]})


# ---- relations ----

X, Y = [1.0, 0.0], [0.0, 1.0]


def encoded(*vectors: list[float], kind: str = "<f4") -> list[str]:
    return [base64.b64encode(np.array(vector, kind).tobytes()).decode() for vector in vectors]


@pytest.mark.parametrize(
    ("name", "holding", "broken"),
    [
        ("equal", [[1], [1]], [[1], [2]]),
        ("unit_length", [[X, Y]], [[X, [0.0, 1.1]]]),
        ("same_size", [[X, Y]], [[X, [1.0]]]),
        ("same_counts", [[[1, 2], [3]], [[0, 0], [0]]], [[[1]], [[1, 2]]]),
        ("same_vectors", [[X, Y], [X, [1e-4, 1.0]]], [[X, Y], [Y, X]]),
        ("same_vectors", [[X], [X]], [[X], [[0.9, 0.0]]]),
        ("same_direction", [[X], [[7.0, 0.0]]], [[X], [[7.0, 7.0]]]),
        ("different_vectors", [[X, Y]], [[X, Y, X]]),
        ("base64_of", [encoded(X, Y), [X, Y]], [encoded(X, Y, kind=">f4"), [X, Y]]),
        ("base64_of", [encoded(X), [X]], [["no base64!"], [X]]),
        ("cosines", [[1.0, 0.0], X, [[2.0, 0.0], Y]], [[1.0, 0.5], X, [X, Y]]),
        ("descending", [[3, 3, 1]], [[1, 3]]),
        ("permutation", [[2, 0, 1], 3], [[0, 0, 1], 3]),
        ("texts_at", [["b", "a"], [1, 0], ["a", "b"]], [["a", "b"], [1, 0], ["a", "b"]]),
        ("texts_at", [["b"], [1], ["a", "b"]], [["b"], [7], ["a", "b"]]),
        (
            "spans_of",
            [[{"special": True}, {"special": False, "start": 0, "stop": 2}], "ab"],
            [[{"special": False, "start": 0, "stop": 3}], "ab"],
        ),
    ],
)
def test_relations(name: str, holding: list[Any], broken: list[Any]) -> None:
    assert holds(name, holding) is None
    found = holds(name, broken)
    assert found is not None and found.expected and found.got


@pytest.mark.parametrize("name", sorted(RELATIONS))
@given(data=st.data())
def test_no_answer_of_a_server_breaks_a_relation(name: str, data: st.DataObject) -> None:
    import inspect

    count = len(inspect.signature(RELATIONS[name]).parameters)
    found = holds(name, [data.draw(JSON) for _ in range(count)])
    assert found is None or (found.expected and found.got)


# ---- variables ----


def test_variables_are_filled_in() -> None:
    template = {
        "model": "$model",
        "input": ["$text", "a $text"],
        "user": "$nobody",
        "many": {"$list": ["x", "$two", 1]},
    }
    assert fill(template, {"model": 5, "text": "t", "two": 2}) == {
        "model": 5,
        "input": ["t", "a t"],
        "many": ["x", "x", "x"],
    }
    assert fill({"$join": [{"$text": ["ab", 2]}, "c"]}, {}) == "ababc"
    assert fill("costs 5$ or $5", {}) == "costs 5$ or $5"


@pytest.mark.parametrize("template", ["$x", ["$x"], "/a/$x", {"$list": ["a", "$x"]}])
def test_a_variable_without_a_value_names_its_remedy(template: Any) -> None:
    with pytest.raises(Unfit, match="--set x=VALUE"):
        fill(template, {})


def test_what_a_server_tells_cannot_make_a_request_huge() -> None:
    with pytest.raises(Skipped, match="more than 100,000"):
        fill({"$text": ["word ", "$longest"]}, {"longest": 10**12})
    for told in ("8", -1, 1.5, True, [3]):
        with pytest.raises(Unfit, match="in the place of a number"):
            fill({"$list": ["x", "$count"]}, {"count": told})


# ---- files ----

GOOD: dict[str, Any] = {
    "version": 1,
    "contract": "mine",
    "cases": [{"name": "a", "rule": "r", "send": {"method": "GET", "path": "/"}}],
}


def changed(**keys: Any) -> dict[str, Any]:
    return {**GOOD, **keys}


def case(**keys: Any) -> dict[str, Any]:
    return {**GOOD, "cases": [{**GOOD["cases"][0], **keys}]}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ([], "must be an object"),
        (changed(version=2), "version 2"),
        (changed(contracts="x"), "'contracts' is not known"),
        (changed(cases=[]), "at least one"),
        (changed(cases=GOOD["cases"] * 2), "no two of one name"),
        (changed(probe={"send": {"method": "GET"}}), "'path' is missing"),
        (case(send={"method": "GET", "path": "x"}), "must start with /"),
        (case(status="200"), r"cases\[0\] \(a\).status"),
        (case(body={"a": "<strin>"}), r"cases\[0\] \(a\).body.a: <strin> is not known"),
        (case(keep={"x": "a b"}), "path 'a b'"),
        (case(keep={"x": 1}), "must be a path"),
        (case(relations=[{"same": ["a"]}]), "no relation 'same'"),
        (case(relations=[{"equal": ["a"]}]), "takes a list of 2"),
        (case(relations=[{"equal": ["a", "b c"]}]), "path 'b c'"),
        (case(steps=[]), "either steps, or"),
        (changed(cases=[{"name": "a", "rule": "r", "steps": []}]), "must not be empty"),
        (changed(cases=[{"name": "a", "rule": "r"}]), "either steps, or"),
        (changed(cases=[{"rule": "r"}]), "'name' is missing"),
    ],
)
def test_mistakes_of_a_file_are_found_before_anything_is_sent(tmp_path: Path, content: Any, told: str) -> None:
    file = tmp_path / "cases.json"
    file.write_text(json.dumps(content))
    with pytest.raises(ConfigurationError, match=told):
        read_file(file)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for name, text, told in (
        ("a.json", "{", "not JSON"),
        ("a.yml", "a: [", "not YAML"),
        ("b.json", b"\xff", "cannot be"),
    ):
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        with pytest.raises(ConfigurationError, match=told):
            read_file(tmp_path / name)


def test_a_file_in_yaml(tmp_path: Path) -> None:
    yaml = pytest.importorskip("yaml")
    (tmp_path / "a.yml").write_text(yaml.safe_dump(GOOD))
    assert [each.name for each in read_file(tmp_path / "a.yml").cases] == ["a"]


def test_the_contracts_that_come_with_flowdex() -> None:
    suite = contracts()
    assert {file.contract for file in recorded_files()} < {each.name for each in suite}
    assert sum(contract.requests for contract in suite) < 200, "docs/conformance.md says how many at most"
    for contract in suite:
        names = [each.name for each in contract.cases]
        assert len(set(names)) == len(names)
        assert all(each.rule for each in contract.cases)


def test_contracts_are_chosen_by_name(tmp_path: Path) -> None:
    assert [each.name for each in contracts(chosen=["tei", "bert"])] == ["bert", "tei"]
    with pytest.raises(InvalidInput, match="there is no contract 'tie'"):
        contracts(chosen=["tie"])
    (tmp_path / "a.json").write_text(json.dumps(changed(contract="tei")))
    with pytest.raises(ConfigurationError, match="two contracts named 'tei'"):
        contracts([tmp_path / "a.json"])


# ---- reports ----


def report(*results: CaseResult, absent: str | None = None, **more: Any) -> Report:
    return Report("http://a", [ContractResult("one", "One", absent, results)], **more)


PASSED = CaseResult("p", "rule", (), 0.1)
FAILED = CaseResult("f", "rule", [Problem("at", "\x00 <this>", "that")], 0.1)
NOT_RUN = CaseResult("s", "rule", (), 0.0, "why")


@pytest.mark.parametrize(
    ("found", "passed", "told"),
    [
        (report(PASSED), True, "1 case of 1 contract passed."),
        (report(PASSED, NOT_RUN), True, "1 case of 1 contract passed, 1 skipped."),
        (report(PASSED, FAILED), False, "1 of 2 cases failed."),
        (report(absent="404"), False, "http://a offers none of these contracts."),
        (report(absent="404", required=["one"]), False, "http://a does not offer one."),
        (report(PASSED, complete=False), False, "Interrupted after 1 case, 0 failed."),
    ],
)
def test_verdicts(found: Report, passed: bool, told: str) -> None:
    assert found.passed is passed
    assert verdict(found) == told
    assert found.to_dict()["passed"] is passed


def test_junit_holds_what_happened() -> None:
    from xml.etree import ElementTree

    root = ElementTree.fromstring(junit(report(PASSED, FAILED, NOT_RUN)))
    (suite,) = root
    assert {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped")} == {
        "tests": "3",
        "failures": "1",
        "errors": "0",
        "skipped": "1",
    }
    assert "<this>" in (suite.findtext(".//failure") or "")
    assert ElementTree.fromstring(junit(report(absent="x", required=["one"]))).find(".//error") is not None
