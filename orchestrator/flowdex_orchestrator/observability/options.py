"""The options of `flowdex gateway` and `flowdex executor` for the port that Prometheus asks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

__all__ = ["metrics_options"]

CommandT = TypeVar("CommandT", bound=Callable[..., Any])


def metrics_options(command: CommandT) -> CommandT:
    """Give a command `--metrics-host` and `--metrics-port`."""
    host = click.option(
        "--metrics-host",
        metavar="HOST",
        default="127.0.0.1",
        show_default=True,
        help="Address of the port for Prometheus.",
    )
    port = click.option(
        "--metrics-port",
        metavar="N",
        type=click.IntRange(0, 65535),
        default=0,
        show_default=True,
        help="Port for Prometheus, 0 for any free one.",
    )
    return host(port(command))
