"""Warnings of what clients do wrong: one a minute."""

from __future__ import annotations

import logging

import pytest

from flowdex_orchestrator.gateway.seldom import SeldomLogger


def test_a_line_a_minute_says_how_many_were_left_out(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="of.clients")
    now = 0.0
    logger = SeldomLogger(logging.getLogger("of.clients"), clock=lambda: now)
    for _ in range(1000):
        logger.warning("request %d is wrong", 7)
    now = 61.0
    logger.warning("request %d is wrong", 8)
    now = 130.0
    logger.warning("request %d is wrong", 9)
    logger.error("this one is ours")
    shown = [record.getMessage() for record in caplog.records if record.levelno > logging.DEBUG]
    assert shown == [
        "request 7 is wrong",
        "request 8 is wrong (999 more of what clients sent wrong was left out)",
        "request 9 is wrong",
        "this one is ours",
    ]
    assert len(caplog.records) == 999 + 4
