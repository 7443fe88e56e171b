"""Logs: lines for people, or JSON for machines, with the request that a line is about.

    configure_logging(process, level, format)      once, at the process's start
    about(request_id, metadata)                    for what is logged from here on in this task
    log.warning("...", extra={"fields": {...}})    further fields of the JSON line

    2026-01-01 12:00:00,000 WARNING flowdex_orchestrator.gateway.slow: slow request: ... [request 4f1c...]
    {"time": "2026-01-01T12:00:00.000Z", "level": "WARNING", "process": "gateway", "request_id": "4f1c...", ...}

Texts of callers and keys are never logged by us; what an executor of somebody else's logs is theirs. Names that callers
choose are, as `shown`: no line of the log is a caller's.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from contextvars import ContextVar
from datetime import datetime, timezone

from flowdex.errors import ConfigurationError
from flowdex_orchestrator.observability.tracing import Metadata, trace_id_of

__all__ = ["FORMATS", "about", "configure_logging", "shown"]

FORMATS = ("text", "json")
FORMAT_VARIABLE = "FLOWDEX_LOG_FORMAT"
"""Environment variable that counts more than the flow file's `log_format`."""

_LONGEST_NAME = 200  # characters
_request: ContextVar[tuple[str, Metadata]] = ContextVar("flowdex_request", default=("", ()))


def about(request_id: str, metadata: Metadata) -> None:
    """Say which request this task works on from now on; its trace is in the metadata."""
    _request.set((request_id, metadata))


def shown(name: str) -> str:
    """A name that a caller chose, as it may stand in a line: of bounded length, and without control characters."""
    name = name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}..."
    return name if name.isprintable() else ascii(name)[1:-1]


def configure_logging(process: str, level: str, log_format: str) -> None:
    """Log to standard error.

    Args:
        process: Name of this process in the flow, such as `encoder-0`.
        level: Least level.
        log_format: `text` or `json`, where the environment does not say.

    Raises:
        ConfigurationError: The environment names another format.
    """
    chosen = os.environ.get(FORMAT_VARIABLE) or log_format
    if chosen not in FORMATS:
        raise ConfigurationError(f"{FORMAT_VARIABLE} must be {' or '.join(FORMATS)}, got {chosen!r}")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json(process) if chosen == "json" else _Text())
    logging.basicConfig(level=level, handlers=[handler], force=True)


class _Text(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The line, and the request's id behind it."""
        line = super().formatMessage(record)
        request_id, _ = _request.get()
        return f"{line} [request {shown(request_id)}]" if request_id else line


class _Json(logging.Formatter):
    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        """One line of JSON."""
        request_id, metadata = _request.get()
        moment = datetime.fromtimestamp(record.created, timezone.utc)
        line = {
            "time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname,
            "process": self._process,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if request_id:
            line["request_id"] = shown(request_id)
        if trace_id := trace_id_of(metadata):
            line["trace_id"] = trace_id
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["stack"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)
