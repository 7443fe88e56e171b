"""The wall clock jumps, in the gateway and in every executor: a library of our own in front of the C library.

Not libfaketime: with it, `time.sleep` of Python fails (`clock_nanosleep` until a time of the monotonic clock: EINVAL).
"""

from __future__ import annotations

import asyncio
import shutil
import struct
import subprocess
import time
from pathlib import Path

from chaos.faults import Row, Setting, Skipped, fault
from chaos.flow import ChaosFlow, flow_yaml
from chaos.load import Load

HOUR, DAY = 3600, 86400
JUMPS = (HOUR, -HOUR, 400 * DAY, -400 * DAY, 0)
"""Seconds from the true time, one after the other."""


@fault("clock", most=5)
async def jump(setting: Setting) -> list[Row]:
    """Forwards and back by an hour and by more than a year, under load."""
    row = Row("the wall clock jumps by an hour and by 400 days, forwards and back", setting.rounds)
    compiler = shutil.which("cc")
    if compiler is None:
        raise Skipped("there is no C compiler here")
    setting.folder.mkdir(parents=True)
    library, offset = setting.folder / "wall_clock.so", setting.folder / "offset"
    source = Path(__file__).with_name("wall_clock.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O2", "-o", str(library), str(source)], check=True)  # noqa: ASYNC221
    set_clock(offset, 0)
    environment = f"  env: {{LD_PRELOAD: {library}, WALL_CLOCK: {offset}}}\n"
    async with ChaosFlow.started(setting.folder / "flow", flow_yaml(common=environment)) as flow:
        load = Load(flow, row.tally)
        async with load.running():
            for _ in range(setting.rounds):
                for seconds in JUMPS:
                    fault = time.monotonic()
                    set_clock(offset, seconds)
                    await asyncio.sleep(2)
                    await load.recovered(fault)
                    assert flow.state().status.value == "ready"
        assert [each.restarts for each in flow.processes()] == [0] * len(flow.processes())
        await load.verify()
    row.note = "no process was taken for dead; the time has the two seconds after each jump in it"
    return [row]


def set_clock(file: Path, seconds: int) -> None:
    """Move the clock of all processes that have mapped the file."""
    with file.open("r+b" if file.exists() else "wb") as opened:
        opened.write(struct.pack("=q", seconds))
