"""`flowdex reload` under load: what differs in the file is changed, no request is lost, a mistake changes nothing."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from runner_support import open_folder
from scaling_support import PROGRAM, ScalableFolder, load, typed

from flowdex import wire
from flowdex.documents import DocumentBatch


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[ScalableFolder]:
    with open_folder(tmp_path, make=ScalableFolder, program=PROGRAM) as folder:
        assert isinstance(folder, ScalableFolder)
        yield folder


def edit(folder: ScalableFolder, old: str, new: str) -> None:
    path = folder.path / "flow.yml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


async def reloaded(folder: ScalableFolder, *arguments: str) -> str:
    return await typed(folder, "reload", "--no-check", *arguments)


async def test_executors_and_replicas_follow_the_file(folder: ScalableFolder) -> None:
    folder.up_with(", replicas: 2, uses_with: {mark: one}")
    assert await reloaded(folder) == "Nothing to do: the flow is what its file says.\n"
    before = folder.pids()
    async with load(folder.port) as callers:
        await callers.served_by(*before)
        edit(folder, "mark: one", "mark: two")
        assert folder.ps()["file_changed"] is True
        assert "`flowdex reload --dry-run` says what differs" in folder.run("ps").stdout
        assert await reloaded(folder, "--dry-run") == "encoder.uses_with.mark: restart\n"
        assert folder.pids() == before
        assert "Reloaded" in await reloaded(folder)
        after = folder.pids()
        assert len(after) == 2 and not set(before) & set(after)
        await callers.served_by(*after)
        callers.marks.clear()
        await callers.served_by(*after)
        assert set(callers.marks) == {"two"}
        assert folder.ps()["file_changed"] is False
        assert folder.state().reloaded_at is not None

        edit(folder, "replicas: 2", "replicas: 3")
        assert "encoder.replicas: scale\n" in await reloaded(folder)
        assert len(folder.pids()) == 3
        edit(folder, "replicas: 3, uses_with: {mark: two}", "replicas: 1, uses_with: {mark: three}")
        await reloaded(folder)
        await callers.served_by(*folder.pids())
        assert len(folder.pids()) == 1


async def test_what_starts_again_is_what_was_reloaded_and_not_what_is_being_edited(folder: ScalableFolder) -> None:
    folder.up_with(", uses_with: {mark: one}")

    async def mark_after_a_crash() -> set[str]:
        (victim,) = folder.pids()
        os.kill(victim, signal.SIGKILL)
        state = folder.wait_for(
            lambda state: state.status.value == "ready" and victim not in folder.pids() and folder.pids(), 30
        )
        assert state
        async with load(folder.port, callers=2) as callers:
            await callers.served_by(*folder.pids())
            return set(callers.marks)

    edit(folder, "mark: one", "mark: {{{ not YAML")
    assert await mark_after_a_crash() == {"one"}
    gateway = folder.pids("gateway")[0]
    os.kill(gateway, signal.SIGKILL)
    folder.wait_for(lambda state: folder.pids("gateway") not in ([], [gateway]) and state.status.value == "ready", 30)
    edit(folder, "mark: {{{ not YAML", "mark: two")
    await reloaded(folder)
    assert await mark_after_a_crash() == {"two"}


async def test_a_mistake_changes_nothing_and_has_its_line(folder: ScalableFolder) -> None:
    folder.up_with(", uses_with: {mark: one}")
    before = folder.pids()
    edit(folder, "name: encoder,", "name: encoder, replicas: none,")
    done = folder.run("reload")
    assert done.returncode == 1 and "flow.yml:4" in done.stderr and "replicas" in done.stderr, done.stderr
    edit(folder, "replicas: none,", "")
    done = folder.run("reload", "--dry-run")  # with the check, of which the classes of this flow are no part
    assert done.returncode == 0, done.stderr
    edit(folder, "mark: one", "mark: two")
    done = folder.run("reload")
    assert done.returncode == 1 and "flow.yml:4" in done.stderr, done.stderr  # x.Y is no class that there is
    assert folder.pids() == before


async def test_what_cannot_change_is_named_and_nothing_else_changes_either(folder: ScalableFolder) -> None:
    folder.up_with(", uses_with: {mark: one}")
    before = folder.pids()
    edit(folder, "mark: one", "mark: two")
    edit(folder, "needs: gateway", "needs: encoder")
    dry = folder.run("reload", "--no-check", "--dry-run")
    assert dry.returncode == 1
    assert "other.needs: flowdex down, flowdex up" in dry.stdout
    done = folder.run("reload", "--no-check")
    assert done.returncode == 1
    assert "other.needs cannot change while the flow runs, so nothing has" in done.stderr
    assert folder.pids() == before
    assert folder.ps()["file_changed"] is True


async def test_an_embedded_index_cannot_be_replaced_while_it_serves(folder: ScalableFolder) -> None:
    folder.up_with(", uses_with: {mark: embedded}")
    edit(folder, "mark: embedded", "mark: two")
    done = folder.run("reload", "--no-check", "--dry-run")
    assert done.returncode == 1
    assert "encoder.uses_with.mark: flowdex down, flowdex up (an embedded index lives in one process)" in done.stdout


async def test_a_replica_that_fails_ends_it_and_the_next_reload_goes_on(folder: ScalableFolder) -> None:
    folder.up_with(", replicas: 2, uses_with: {mark: one}")
    async with load(folder.port) as callers:
        before = folder.pids()
        edit(folder, "mark: one", "mark: bad")
        edit(folder, "executors:", "gateway: {uses_with: {max_in_flight: 1}}\nexecutors:")
        done = await asyncio.to_thread(folder.run, "reload", "--no-check")
        assert done.returncode == 1
        assert "nothing has changed: encoder serves as before" in done.stderr
        assert folder.pids() == before and folder.ps()["file_changed"] is True
        await asyncio.sleep(0.3)  # in which `load` would be refused, had the gateway changed: 8 callers, 1 place
        edit(folder, "mark: bad", "mark: one")
        edit(folder, "gateway: {uses_with: {max_in_flight: 1}}\n", "")
        assert await reloaded(folder) == "Nothing to do: the flow is what its file says.\n"
        edit(folder, "mark: one", "mark: two")
        await reloaded(folder)
        await callers.served_by(*folder.pids())
        callers.marks.clear()
        await callers.served_by(*folder.pids())
        assert set(callers.marks) == {"two"}


async def test_limits_of_the_gateway_change_at_once(folder: ScalableFolder) -> None:
    folder.up_with()
    gateway = folder.pids("gateway")
    request = wire.build_request("/encode", DocumentBatch.from_columns(texts=["a"]))
    async with grpc.aio.insecure_channel(f"127.0.0.1:{folder.port}", options=[("grpc.enable_retries", 0)]) as channel:
        call = channel.unary_unary(wire.PROCESS_SINGLE_DATA)

        async def codes(count: int) -> set[str]:
            done = await asyncio.gather(*(call(request, timeout=20) for _ in range(count)), return_exceptions=True)
            return {each.code().name if isinstance(each, grpc.aio.AioRpcError) else "OK" for each in done}

        assert await codes(12) == {"OK"}
        edit(folder, "executors:", "gateway: {uses_with: {max_in_flight: 2}}\nexecutors:")
        assert "gateway.uses_with.max_in_flight: at once\n" in await reloaded(folder)
        assert await codes(12) == {"OK", "RESOURCE_EXHAUSTED"}
        edit(folder, "max_in_flight: 2", "max_in_flight: 20")
        await reloaded(folder)
        assert await codes(12) == {"OK"}
        edit(folder, "name: encoder,", "name: encoder, timeout_send: 5,")
        assert "encoder.timeout_send: at once\n" in await reloaded(folder)
        assert await codes(4) == {"DEADLINE_EXCEEDED"}
    assert folder.pids("gateway") == gateway
