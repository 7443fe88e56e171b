"""Reranking through a running flow: the default of flows/rerank.yml, falling back in time, and /rank, by every way."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from flow_support import ROOT, RunningFlow, start_flow, stop_flow

from flowdex import AsyncClient, Client
from flowdex.errors import DeadlineExceeded, InvalidInput

TEXTS = {
    "cat": "A cat purrs when it is stroked, and sleeps for most of the day.",
    "moon": "The Moon is the only natural satellite of the Earth.",
    "apollo": "Apollo 11 brought the first people to the Moon in July 1969.",
    "bread": "Bread is baked from a dough of flour, water, salt and yeast.",
    "dog": "Dogs bark at strangers and like long walks.",
}
QUERY = "who were the first people to walk on the Moon?"


@pytest.fixture(scope="module")
def flow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningFlow]:
    running = start_flow(tmp_path_factory.mktemp("rerank-flow"), (ROOT / "flows" / "rerank.yml").read_text())
    with Client(running.grpc_url) as client:
        client.index([{"id": name, "text": text} for name, text in TEXTS.items()])
    yield running
    stop_flow(running)


@pytest.fixture(scope="module")
def client(flow: RunningFlow) -> Iterator[Client]:
    with Client(flow.grpc_url) as client:
        yield client


def test_hits_are_reranked_by_default(client: Client) -> None:
    # Room for the first batches of a busy machine: what is told of a time-out is tested below.
    result = client.search(QUERY, parameters={"rerank": {"timeout": 60}, "explain": True})
    assert result.notes == []
    assert [hit.id for hit in result][:2] == ["apollo", "moon"]
    assert all("rerank" in hit.scores for hit in result)
    scores = [hit.score for hit in result]
    assert scores == sorted(scores, reverse=True)
    ranks = sorted(hit.explain["rerank"]["rank"] for hit in result if hit.explain)
    assert ranks == list(range(1, len(result) + 1))


def test_a_request_may_do_without(client: Client) -> None:
    result = client.search(QUERY, parameters={"rerank": "none"})
    assert len(result) == len(TEXTS)
    assert not any("rerank" in hit.scores for hit in result)


def test_only_the_first_are_reranked_and_the_rest_follows(client: Client) -> None:
    plain = [hit.id for hit in client.search(QUERY, parameters={"rerank": "none"})]
    result = client.search(QUERY, parameters={"rerank": {"top": 2, "timeout": 60}})
    assert [hit.id for hit in result][2:] == plain[2:]
    assert ["rerank" in hit.scores for hit in result] == [True, True, False, False, False]
    scores = [hit.score for hit in result]
    assert scores == sorted(scores, reverse=True)


def test_when_the_time_is_up_the_order_is_the_one_before_with_a_note(client: Client) -> None:
    plain = [hit.id for hit in client.search(QUERY, parameters={"rerank": "none"})]
    result = client.search("who went to the Moon first?", parameters={"rerank": {"timeout": 1e-4}})
    assert len(result) == len(TEXTS)
    assert len(result.notes) == 1
    assert "late_interaction was not done within" in result.notes[0]
    assert [hit.id for hit in client.search(QUERY, parameters={"rerank": {"timeout": 1e-4}})] == plain


def test_a_method_that_the_flow_does_not_have_is_refused(client: Client) -> None:
    with pytest.raises(InvalidInput, match="no cross-encoder"):
        client.search(QUERY, parameters={"rerank": "cross_encoder"})
    with pytest.raises(InvalidInput, match="rerank"):
        client.search(QUERY, parameters={"rerank": "magic"})


def test_a_gateway_that_does_not_answer_costs_the_time_limit_and_no_more(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and says nothing
        text = (ROOT / "flows" / "rerank.yml").read_text()
        address = f"grpc://127.0.0.1:{silent.getsockname()[1]}"
        text = text.replace(
            "    uses_with:\n      rerank:", f"    env:\n      FLOWDEX_URL: {address}\n    uses_with:\n      rerank:"
        )
        flow = start_flow(tmp_path, text)
        try:
            with Client(flow.grpc_url) as client:
                client.index([{"id": name, "text": text} for name, text in TEXTS.items()])
                plain = client.search(QUERY, parameters={"rerank": "none"})
                result = client.search(QUERY, parameters={"rerank": {"timeout": 0.3}})
                assert [hit.id for hit in result] == [hit.id for hit in plain]
                assert "late_interaction" in result.notes[0]
                # The request's own deadline comes before the stage's.
                short = client.search(QUERY, parameters={"rerank": {"timeout": 60}}, timeout=3)
                assert [hit.id for hit in short] == [hit.id for hit in plain]
                assert "late_interaction" in short.notes[0]
                with pytest.raises(DeadlineExceeded):
                    client.rank(QUERY, list(TEXTS.values()), timeout=1)
        finally:
            stop_flow(flow)


async def test_many_at_a_time_beyond_the_limit_of_the_gateway_all_get_an_answer(tmp_path: Path) -> None:
    """Every search asks the same gateway for token vectors; none may wait for a place that another search holds."""
    text = (ROOT / "flows" / "rerank.yml").read_text()
    text = text.replace("FlowdexGateway\n", "FlowdexGateway\n  uses_with:\n    max_in_flight: 2\n")
    flow = start_flow(tmp_path, text)
    try:
        async with AsyncClient(flow.grpc_url, retries=50) as client:
            await client.index([{"id": name, "text": text} for name, text in TEXTS.items()], prefetch=1)
            searches = [client.search(f"{QUERY} {number}", timeout=60) for number in range(8)]
            results = await asyncio.wait_for(asyncio.gather(*searches), 90)
        assert all(len(result) == len(TEXTS) for result in results)
        notes = [note for result in results for note in result.notes]
        assert all("late_interaction" in note for note in notes)
    finally:
        stop_flow(flow)


@pytest.mark.parametrize("method", [None, "late_interaction", "dense"])
def test_texts_are_ranked_without_an_index(flow: RunningFlow, client: Client, method: str | None) -> None:
    texts = list(TEXTS.values())
    ranked = client.rank(QUERY, texts, method=method)  # type: ignore[arg-type]
    assert ranked[0].text == TEXTS["apollo"]
    assert sorted(each.index for each in ranked) == list(range(len(texts)))
    assert all(each.text == texts[each.index] for each in ranked)
    assert [each.score for each in ranked] == sorted((each.score for each in ranked), reverse=True)
    with Client(flow.http_url) as over_http:
        answer = over_http.rank(QUERY, texts, method=method, top=2)  # type: ignore[arg-type]
    assert [each.index for each in answer] == [each.index for each in ranked][:2]
    assert [each.score for each in answer] == pytest.approx([each.score for each in ranked][:2], abs=1e-3)


def test_rank_over_plain_http_and_from_the_command_line(flow: RunningFlow) -> None:
    reply = httpx.post(
        f"{flow.http_url}/rank", json={"query": QUERY, "texts": list(TEXTS.values()), "top": 1}, timeout=60
    )
    assert reply.status_code == 200
    (best,) = reply.json()["results"]
    assert (best["index"], best["text"]) == (2, TEXTS["apollo"])
    (flow.folder / "texts.txt").write_text("\n".join(TEXTS.values()) + "\n\n")
    done = flow.flowdex("rank", QUERY, "--texts", "texts.txt", "--method", "dense", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["results"][0]["index"] == 2
    done = flow.flowdex("rank", QUERY, "--texts", "texts.txt", "-n", "1")
    assert TEXTS["apollo"] in " ".join(done.stdout.split())


def test_blank_texts_are_refused(client: Client) -> None:
    with pytest.raises(InvalidInput, match="text 1"):
        client.rank(QUERY, ["a", " "])
    with pytest.raises(InvalidInput, match="no texts"):
        client.rank(QUERY, [])


def test_status_tells_the_stage_and_what_is_kept(client: Client) -> None:
    (ranker,) = [each for each in client.status().executors if each.name == "ranker"]
    assert ranker.status["rerank"] == {"method": "late_interaction", "top": 50, "timeout": 5}
    assert ranker.status["cached_texts"] >= len(TEXTS)
    assert ranker.status["encoder_url"] == client.url
