"""Replicas come and go under load: scale, restart, autoscale; runner and gateway are real (see scaling_fake.py)."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from runner_support import open_folder, wait_until
from scaling_support import PROGRAM, ScalableFolder, load, typed

from flowdex.errors import Unauthenticated
from flowdex_orchestrator.control import ask


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[ScalableFolder]:
    with open_folder(tmp_path, make=ScalableFolder, program=PROGRAM) as folder:
        assert isinstance(folder, ScalableFolder)
        yield folder


async def test_up_and_down_again_and_again_loses_no_request(folder: ScalableFolder) -> None:
    folder.up_with()
    async with load(folder.port) as callers:
        began = time.monotonic()
        for count in (3, 1, 4, 2, 1):
            said = await typed(folder, "scale", f"encoder={count}")
            assert re.match(rf"encoder has {count} replicas? instead of \d \(", said)
            rows = [row for row in folder.ps()["processes"] if row["name"] == "encoder"]
            assert [(row["replica"], row["state"]) for row in rows] == [(number, "ready") for number in range(count)]
            await callers.served_by(*(row["pid"] for row in rows))
        assert folder.ps()["status"] == "ready"
        assert time.monotonic() - began < 60


async def test_a_rolling_restart_with_another_argument_loses_no_request(folder: ScalableFolder) -> None:
    folder.up_with(", replicas: 2")
    before = folder.pids()
    async with load(folder.port) as callers:
        said = await typed(folder, "restart", "encoder", "--set", "encoder.uses_with.mark=new")
        assert said.startswith("encoder: 2 replicas restarted")
        after = folder.pids()
        assert len(after) == 2
        assert not set(before) & set(after)
        await callers.served_by(*after)
        assert set(callers.marks) == {"", "new"}
        await typed(folder, "scale", "encoder=3")  # what comes later has the argument too
        callers.marks.clear()
        await callers.served_by(*folder.pids())
        assert set(callers.marks) == {"new"}

        failed = await asyncio.to_thread(folder.run, "restart", "encoder", "--set", "mark=bad")
        assert failed.returncode == 1
        assert "ValueError: mark must not be bad" in failed.stderr
        assert "nothing has changed: encoder serves as before" in failed.stderr
        await callers.served_by(*folder.pids())
    assert [each.replica for each in folder.state().processes if each.name == "encoder"] == [0, 1, 2]


async def test_crashes_and_a_new_gateway_while_scaling(folder: ScalableFolder) -> None:
    folder.up_with()
    scaling = folder.start("scale", "encoder=3")
    state = folder.wait_for(lambda state: sum(each.name == "encoder" for each in state.processes) == 3)
    victim = next(each for each in state.processes if each.label == "encoder-2")
    folder.wait_for(lambda state: all(each.process for each in state.processes))
    victim = next(each for each in folder.state().processes if each.label == "encoder-2")
    assert victim.process is not None
    os.kill(victim.process.pid, signal.SIGKILL)
    _, err = scaling.communicate(timeout=30)
    if scaling.returncode:  # it died before it was part of the flow
        assert "encoder-2 failed: killed by SIGKILL" in err
        assert len(folder.pids()) == 1
        await typed(folder, "scale", "encoder=3")
    folder.wait_for(lambda state: state.status.value == "ready")

    gateway = folder.pids("gateway")[0]
    os.kill(gateway, signal.SIGKILL)
    folder.wait_for(lambda state: all(each.process and each.process.pid != gateway for each in state.processes), 30)
    folder.wait_for(lambda state: state.status.value == "ready", 30)
    async with load(folder.port) as callers:
        await callers.served_by(*folder.pids())
        await typed(folder, "scale", "encoder=1")
        assert len(folder.pids()) == 1
        await callers.served_by(*folder.pids())


def test_wrong_commands_are_refused_with_reasons(folder: ScalableFolder) -> None:
    none = folder.run("scale", "encoder=2")
    assert none.returncode == 1
    assert none.stderr == "Error: the flow is not running; start it with `flowdex up --detach`\n"
    folder.up_with("", "--set", "encoder.mark=embedded")
    for arguments, code, message in [
        (["encoder=0"], 1, "encoder needs at least one replica, got 0"),
        (["encoder"], 2, "expected NAME=N"),
        (["encoder=-1"], 2, "expected NAME=N"),
        (["encodr=2"], 1, "no executor 'encodr' (did you mean 'encoder'?)"),
        (["gateway=2"], 1, "no executor 'gateway'"),
        (["encoder=2"], 1, "an embedded index lives in one process; use a Qdrant server"),
        (["other=2", "encoder=2"], 1, "an embedded index"),
    ]:
        done = folder.run("scale", *arguments)
        assert done.returncode == code, done
        assert message in done.stderr
        assert "Traceback" not in done.stderr
    assert "an embedded index" in folder.run("restart", "encoder").stderr
    assert [(each.name, each.state.value) for each in folder.state().processes] == [
        ("encoder", "ready"),
        ("other", "ready"),
        ("gateway", "ready"),
    ]


async def test_one_change_at_a_time_and_ctrl_c_undoes_it(folder: ScalableFolder) -> None:
    folder.up_with("", "--set", "other.mark=x")
    slow = folder.start("restart", "encoder", "--set", "mark=slow")
    folder.wait_for(lambda state: sum(each.name == "encoder" for each in state.processes) == 2)
    other = folder.run("scale", "encoder=2")
    assert other.returncode == 1
    assert "encoder is being restarted; try again when that is done" in other.stderr
    assert folder.run("scale", "other=2").returncode == 0
    assert folder.ps()["status"] == "ready"
    slow.send_signal(signal.SIGINT)
    slow.communicate(timeout=10)
    assert slow.returncode == 130
    folder.wait_for(lambda state: sum(each.name == "encoder" for each in state.processes) == 1)
    wait_until(lambda: folder.run("scale", "encoder=2").returncode == 0, 10)


async def test_only_who_has_the_token_may_scale(folder: ScalableFolder) -> None:
    folder.up_with()
    assert (folder.run_folder.path / "token").stat().st_mode & 0o777 == 0o600
    with pytest.raises(Unauthenticated, match="token"):
        await ask(folder.state().control, "guess", "scale", {"replicas": {"encoder": 2}}, timeout=5)
    assert len(folder.pids()) == 1


def test_the_same_over_the_gateways_http_api(folder: ScalableFolder) -> None:
    folder.up_with(protocols="[grpc, http]")
    http = next(url for name, url in folder.state().endpoints.items() if name == "http")
    token = folder.run_folder.read_token()
    with httpx.Client(base_url=http, trust_env=False, timeout=30) as client:

        def post(path: str, body: dict[str, object], secret: str = token) -> tuple[int, dict[str, Any]]:
            reply = client.post(path, json=body, headers={"Authorization": f"Bearer {secret}"})
            return reply.status_code, reply.json()

        assert post("/admin/scale", {"replicas": {"encoder": 2}}) == (200, {"before": {"encoder": 1}})
        before = folder.pids()
        assert len(before) == 2
        assert post("/admin/restart", {"executor": "encoder", "settings": {"mark": "x"}}) == (200, {"replicas": 2})
        assert not set(before) & set(folder.pids())
        for body, secret, code, detail in [
            ({"replicas": {"encoder": 1}}, "guess", 401, "token"),
            ({"replicas": {"encodr": 1}}, token, 422, "did you mean 'encoder'?"),
            ({"replicas": {"encoder": 0}}, token, 422, "at least one replica"),
            ({"replicas": {}}, token, 422, "replicas"),
        ]:
            found, problem = post("/admin/scale", body, secret)
            assert (found, detail in problem["detail"]) == (code, True), problem
        assert client.post("/admin/scale", json={"replicas": {"encoder": 1}}).status_code == 401
        assert len(folder.pids()) == 2


async def test_a_queue_makes_it_grow(folder: ScalableFolder) -> None:
    folder.up_with(", autoscale: {min: 1, max: 3, target_queue_ms: 60}")
    async with load(folder.port, callers=12):  # at one replica each waits for 11 others: 220 ms
        await asyncio.to_thread(
            folder.wait_for,
            lambda state: len(state.processes) > 3 and all(each.state.value == "ready" for each in state.processes),
            30,
        )
        assert 2 <= len(folder.pids()) <= 3
    assert "ms of queue, target 60: 1 -> 3 replicas" in folder.run("logs", "runner").stdout


def test_down_while_it_scales(folder: ScalableFolder) -> None:
    folder.up_with()
    slow = folder.start("restart", "encoder", "--set", "mark=slow")
    folder.wait_for(lambda state: sum(each.name == "encoder" for each in state.processes) == 2)
    down = folder.run("down")
    assert down.returncode == 0, down.stderr
    _, err = slow.communicate(timeout=10)
    assert slow.returncode == 1
    assert "Traceback" not in err
