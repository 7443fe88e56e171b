"""Processes that are killed, or stopped."""

from __future__ import annotations

import asyncio
import logging
import random
import signal
import time

from chaos.faults import Row, Setting, fault
from chaos.flow import ChaosFlow, flow_yaml
from chaos.load import Load, Tally

logger = logging.getLogger(__name__)

VICTIMS = ("encoder", "indexer", "ranker", "segmenter", "gateway", "runner")


@fault("kill")
async def kill(setting: Setting) -> list[Row]:
    """SIGKILL to each kind of process at random moments, one after the other, again and again."""
    rows = {name: Row(f"kill -9: {name}", 0) for name in VICTIMS}
    end = time.monotonic() + setting.seconds
    chance = random.Random(8 + 100 * setting.seed)
    async with ChaosFlow.started(setting.folder) as flow:
        load = Load(flow, Tally())
        async with load.running():
            for _ in range(setting.rounds):
                if time.monotonic() > end:
                    break
                for name in chance.sample(VICTIMS, len(VICTIMS)):  # the same one twice in a row would be a crash loop
                    rows[name].times += 1
                    load.tally = rows[name].tally
                    await asyncio.sleep(chance.uniform(0.2, 1.0))
                    fault = time.monotonic()
                    logger.info("kill -9: %s", name)
                    gone = flow.kill(name, chance)
                    if name == "runner":
                        await load.recovered(fault, replaced=flow.up_again())
                    else:
                        await load.recovered(fault, replaced=flow.until_replaced(gone))
        for row in rows.values():
            load.tally = row.tally
            await load.verify()
    return list(rows.values())


@fault("stop", most=5)
async def stop(setting: Setting) -> list[Row]:
    """SIGSTOP to a replica, which hangs and does not die; it is found, and restarted."""
    silent = 20.0
    text = flow_yaml(common=f"  timeout_silent: {silent * 1000:.0f}\n")
    row = Row(f"SIGSTOP: a replica of the encoder (`timeout_silent` {silent:g} s)", setting.rounds)
    chance = random.Random(9 + 100 * setting.seed)
    async with ChaosFlow.started(setting.folder, text) as flow:
        load = Load(flow, row.tally, clients=4)
        async with load.running():
            for _ in range(setting.rounds):
                await asyncio.sleep(chance.uniform(0.2, 1.0))
                fault = time.monotonic()
                gone = flow.kill("encoder", chance, signal.SIGSTOP)
                await load.recovered(fault, replaced=flow.until_replaced(gone))
        await load.verify()
    row.note = f"longest pause between two answers {row.tally.gap:.1f} s"
    return [row]
