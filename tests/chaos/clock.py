"""The wall clock jumps, in every process of the flow: libfaketime in front of the C library."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from unittest import mock

from chaos.faults import Row, Setting, Skipped, fault
from chaos.flow import ChaosFlow
from chaos.load import Load

JUMPS = ("+1h", "-1h", "+400d", "-400d", "+0")
_LIBRARIES = (
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/faketime/libfaketimeMT.so.1",
)


@fault("clock", most=5)
async def jump(setting: Setting) -> list[Row]:
    """Forwards and back by an hour and by more than a year, under load."""
    row = Row(f"the wall clock jumps: {', '.join(JUMPS)}", setting.rounds)
    library = _library()
    if library is None:
        raise Skipped("libfaketime is not installed (Debian: apt install libfaketime)")
    file = setting.folder / "clock"
    await asyncio.to_thread(setting.folder.mkdir, parents=True)
    await asyncio.to_thread(file.write_text, "+0\n")
    environment = {
        "LD_PRELOAD": library,
        "FAKETIME_TIMESTAMP_FILE": str(file),
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",  # nothing moves that in earnest either
        "FAKETIME_NO_CACHE": "1",
    }
    with mock.patch.dict(os.environ, environment):
        started = ChaosFlow.started(setting.folder / "flow")
        flow = await started.__aenter__()
    try:
        load = Load(flow, row.tally)
        async with load.running():
            for _ in range(setting.rounds):
                for offset in JUMPS:
                    fault = time.monotonic()
                    await asyncio.to_thread(set_clock, file, offset)
                    await asyncio.sleep(2)
                    await load.recovered(fault)
                    assert flow.state().status.value == "ready"
        assert [each.restarts for each in flow.processes()] == [0] * len(flow.processes())
        await load.verify()
    finally:
        await started.__aexit__(None, None, None)
    row.note = "no process was taken for dead"
    return [row]


def _library() -> str | None:
    return next((each for each in _LIBRARIES if Path(each).exists()), None)


def set_clock(file: Path, offset: str) -> None:
    """Tell libfaketime, in one piece."""
    new = file.with_suffix(".new")
    new.write_text(f"{offset}\n")
    new.replace(file)
