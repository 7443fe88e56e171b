"""Documents through both clients, over gRPC and HTTP, and the command line: in, out, failing alone, and resumed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fake_flow import FakeFlow

from flowdex import AsyncClient, Client, Document, InvalidInput, NotFound, WrongType


@pytest.fixture(params=["grpc", "http"])
def client(request: pytest.FixtureRequest, flow: FakeFlow) -> Iterator[Client]:
    with Client(flow.grpc_url if request.param == "grpc" else flow.http_url) as opened:
        yield opened


FIELDS = {"title": "Zeppelins", "body": "They flew.", "appendix": "Once."}


def test_fields_and_vectors_go_in_and_come_back(client: Client) -> None:
    client.index(
        [
            Document(id="f", fields=FIELDS),
            {"id": "v", "embedding": [1, 0.5], "tags": {"x": 1}},
            {"id": "t", "text": "a text", "embedding": np.ones(2)},
        ]
    )
    found = client.get(["v", "unknown", "f", "t"], embeddings=True)
    assert [each.id for each in found] == ["v", "f", "t"]
    assert list(found[1].fields.items()) == list(FIELDS.items())
    assert found[0].tags == {"x": 1}
    np.testing.assert_array_equal(found[0].embedding, np.asarray([1, 0.5], np.float32))
    assert (found[2].text, found[2].passage_count) == ("a text", 1)
    assert client.get("t") == found[2]
    with pytest.raises(NotFound, match="'unknown'"):
        client.get("unknown")


def test_scroll_count_and_back_in(client: Client, flow: FakeFlow) -> None:
    client.index([{"id": f"d{n}", "text": f"text {n}", "tags": {"even": n % 2 == 0}} for n in range(25)])
    documents = list(client.scroll(page_size=4))
    assert [each.id for each in documents] == [f"d{n}" for n in range(25)]
    assert [each.id for each in client.scroll(filter={"even": True}, page_size=5)] == [f"d{n}" for n in range(0, 25, 2)]
    assert (client.count(), client.count({"even": True})) == (25, 13)
    before = dict(flow.documents)
    assert client.index(documents).documents == 25
    assert flow.documents == before
    page = client.page(page_size=10)
    assert (len(page.documents), len(client.page(page.cursor, page_size=10).documents)) == (10, 10)


async def test_the_async_client(flow: FakeFlow) -> None:
    async with AsyncClient(flow.grpc_url) as client:
        await client.index(["one", "two", "three"])
        assert len([each async for each in client.scroll(page_size=2)]) == await client.count() == 3


def test_documents_fail_alone(client: Client, flow: FakeFlow) -> None:
    rows = [{"id": f"d{n}", "text": "rotten" if n in (3, 70) else "fine"} for n in range(100)]
    result = client.index(rows, on_error="collect")
    assert (result.documents, result.failed) == (98, 2)
    assert [(each.id, each.position) for each in result.failures] == [("d3", 3), ("d70", 70)]
    assert isinstance(result.failures[0].error, InvalidInput)
    sizes = sorted(size for endpoint, size in flow.calls if endpoint == "/index")  # in flight at the same time
    assert sizes == [36, 64], "nothing is sent twice"
    assert "d3" not in result.ids
    with pytest.raises(InvalidInput, match="'d70' is rotten"):
        client.index(rows[60:])


def test_resume(client: Client, flow: FakeFlow) -> None:
    rows = [{"id": f"d{n}", "text": f"text {n}", "tags": {"n": n}} for n in range(10)]
    assert client.index(rows[:6], resume=True).documents == 6
    flow.calls.clear()
    result = client.index(rows, resume=True)
    assert (result.documents, result.unchanged, result.ids) == (4, 6, ["d6", "d7", "d8", "d9"])
    assert flow.calls == [("/get", 10), ("/index", 4)]
    rows[2] = {**rows[2], "tags": {"n": 99}}
    rows[5] = {"id": "d5", "fields": FIELDS}
    assert client.index(rows, resume=True).ids == ["d2", "d5"]
    result = client.index(rows, resume=True)
    assert (result.documents, result.unchanged) == (0, 10)
    assert "unchanged: 10 documents" in str(result)


@pytest.mark.parametrize(
    ("item", "error", "match"),
    [
        ({"id": "a"}, InvalidInput, "has no 'text'"),
        ({"text": "x", "fields": {"t": "y"}}, InvalidInput, "a text and other fields"),
        ({"fields": {"t": 1}}, WrongType, "fields must be texts"),
        ({"fields": ["t"]}, WrongType, "fields must be texts"),
        ({"fields": {"t": " "}}, InvalidInput, "blank"),
        ({"text": "x", "embedding": "vector"}, InvalidInput, "embedding must be"),
        ({"text": "x", "embedding": [[1.0]]}, InvalidInput, "embedding must be"),
    ],
)
def test_refused_before_anything_is_sent(client: Client, flow: FakeFlow, item: object, error: type, match: str) -> None:
    with pytest.raises(error, match=match):
        client.index([item])
    assert not flow.calls


# ---- the command line ----


def flowdex(flow: FakeFlow, *arguments: str, cwd: Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "flowdex", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=cwd,
        env={**os.environ, "FLOWDEX_URL": flow.grpc_url, "PYTHONIOENCODING": "utf-8"},
        check=False,
    )


def test_export_and_index_are_inverse(flow: FakeFlow, tmp_path: Path) -> None:
    with Client(flow.grpc_url) as client:
        client.index(
            [
                Document(id="f", fields=FIELDS, tags={"none": None, "empty": "", "ü": [1, {"x": 2}]}),
                {"id": "v", "embedding": [1, 0.5]},
                {"id": "t", "text": " a text\n", "tags": {"lang": "en"}},
            ]
        )
    before = {name: {**each, "embedding": None} for name, each in flow.documents.items()}
    assert flowdex(flow, "count", "--json", cwd=tmp_path).stdout == '{"documents": 3}\n'
    done = flowdex(flow, "export", "-o", "all.jsonl", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "Exported 3 documents.\n")
    flow.documents.clear()
    done = flowdex(flow, "index", "all.jsonl", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert {name: {**each, "embedding": None} for name, each in flow.documents.items()} == before
    assert flow.documents["v"]["embedding"].tolist() == [1, 0.5]
    done = flowdex(flow, "export", "--filter", '{"lang": "en"}', cwd=tmp_path)
    assert [json.loads(line)["id"] for line in done.stdout.splitlines()] == ["t"]
    done = flowdex(flow, "index", "-", cwd=tmp_path, stdin='{"flowdex": 2, "id": "x"}\n')
    assert (done.returncode, "-:1: not a line that this version" in done.stderr) == (1, True)


def test_get(flow: FakeFlow, tmp_path: Path) -> None:
    with Client(flow.grpc_url) as client:
        client.index([Document(id="f", fields=FIELDS), Document("the text", id="t", tags={"n": 1})])
    done = flowdex(flow, "get", "t", "f", cwd=tmp_path)
    assert done.returncode == 0
    assert done.stdout.startswith("t  1 passage\nn: 1\n\nthe text\n\nf  1 passage\n")
    assert "\ntitle\nZeppelins\n" in done.stdout
    done = flowdex(flow, "get", "f", "missing", "--json", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (1, "missing: there is no such document\n")
    assert json.loads(done.stdout) == {"id": "f", "fields": FIELDS, "tags": {}}


def test_failures_are_named_by_source_and_line_and_do_not_stop_the_rest(flow: FakeFlow, tmp_path: Path) -> None:
    lines = [{"id": f"d{n}", "text": "rotten" if n % 4 == 1 else "fine"} for n in range(100)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\nbroken\n")
    (tmp_path / "note.txt").write_text("rotten too")
    done = flowdex(flow, "index", "rows.jsonl", "note.txt", "--errors", "failed.jsonl", cwd=tmp_path)
    assert done.returncode == 1
    assert "Indexed 75 documents" in done.stdout
    assert done.stdout.endswith("; 27 failed\n")
    shown = done.stderr.splitlines()
    assert len(shown) == 21
    assert shown[0].startswith("rows.jsonl:101: not JSON")
    assert shown[1] == "rows.jsonl:2 (d1): document 'd1' is rotten"
    assert shown[-1] == "... and 7 more"
    failed = [json.loads(line) for line in (tmp_path / "failed.jsonl").read_text().splitlines()]
    assert len(failed) == 27
    assert failed[-1] == {"id": "note.txt", "source": "note.txt", "reason": "document 'note.txt' is rotten"}


def test_resume_on_the_command_line(flow: FakeFlow, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"id": f"d{n}", "text": "x"}) + "\n" for n in range(10)))
    flowdex(flow, "index", "rows.jsonl", cwd=tmp_path)
    for name in ("d3", "d4"):
        del flow.documents[name]
    done = flowdex(flow, "index", "rows.jsonl", "--resume", cwd=tmp_path)
    assert done.stdout.startswith("Indexed 2 documents")
    assert done.stdout.endswith("; 8 unchanged\n")
    answer = json.loads(flowdex(flow, "index", "rows.jsonl", "--resume", "--json", cwd=tmp_path).stdout)
    assert (answer["documents"], answer["unchanged"], answer["failures"]) == (0, 10, [])
