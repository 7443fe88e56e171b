"""Fingerprints: equal exactly when the parts are, and hashes of files that are not read twice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowdex_executors.encoder.fingerprint import differences, digest_files, fingerprint, fingerprint_id

PARTS = st.dictionaries(
    st.sampled_from(["model", "pooling", "layers", "dtype"]),
    st.one_of(st.text(max_size=5), st.integers(), st.booleans(), st.lists(st.integers(), max_size=3)),
)


@given(PARTS, PARTS)
def test_equal_exactly_when_the_parts_are(one: dict[str, object], other: dict[str, object]) -> None:
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (fingerprint(one) == fingerprint(other)) is same
    assert (fingerprint_id(fingerprint(one)) == fingerprint_id(fingerprint(other))) is same
    assert fingerprint(dict(reversed(one.items()))) == fingerprint(one), "order is nothing"


def test_it_can_be_read() -> None:
    text = fingerprint({"model": "größe", "pooling": ["mean"]})
    assert text.startswith('{"id":"') and "\n" not in text
    parts = json.loads(text)
    assert (parts["model"], parts["pooling"], len(parts["id"])) == ("größe", ["mean"], 16)


def test_differences() -> None:
    one = fingerprint({"model": "a", "pooling": ["mean"], "normalize": True})
    other = fingerprint({"model": "a", "pooling": ["cls"], "dtype": "float16", "normalize": False})
    assert differences(one, other) == [
        'dtype is "float16" instead of nothing',
        "normalize is false instead of true",
        'pooling is ["cls"] instead of ["mean"]',
    ]
    assert differences(one, "something else")[0].startswith("model is nothing instead of")
    assert differences("x", "y") == ["fingerprint is y instead of x"]
    assert fingerprint_id("not ours") == "not ours"


def test_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWDEX_CACHE", str(tmp_path / "cache"))
    one, other, missing = tmp_path / "one", tmp_path / "other", tmp_path / "missing"
    one.write_bytes(b"1" * 3_000_000)
    other.write_bytes(b"2")
    first = digest_files(one, missing, other)
    assert first == digest_files(one, other) != digest_files(one)
    assert len(list((tmp_path / "cache" / "digests").iterdir())) == 2
    monkeypatch.setattr("flowdex_executors.encoder.fingerprint._blocks", lambda path: pytest.fail("it was read again"))
    assert digest_files(one, other) == first
    monkeypatch.undo()
    monkeypatch.setenv("FLOWDEX_CACHE", str(tmp_path / "cache"))
    other.write_bytes(b"33")
    assert digest_files(one, other) != first


def test_no_folder_for_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("x")
    expected = digest_files(tmp_path / "file")
    monkeypatch.setenv("FLOWDEX_CACHE", str(tmp_path / "file" / "below a file"))
    assert digest_files(tmp_path / "file") == expected
