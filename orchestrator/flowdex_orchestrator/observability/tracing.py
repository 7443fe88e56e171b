"""Traces by OpenTelemetry: one span for a request at the gateway, one for each call of an executor, one for its work.

    client's traceparent --> gateway "/search" --> "call encoder" --traceparent--> "encoder" (queue_ms, tokens, ...)
                                               --> "call indexer" --traceparent--> "indexer"

The context goes from process to process as W3C has it (https://www.w3.org/TR/trace-context/), in HTTP headers and gRPC
metadata. Everything else is OpenTelemetry's: its environment variables say where spans go, which are sampled and what
the process is called (OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_TRACES_SAMPLER, OTEL_SERVICE_NAME, ...). Spans have no texts
and no messages of errors, only their classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from flowdex.errors import ConfigurationError

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span as OtelSpan

__all__ = ["TRACE_KEYS", "Span", "Tracing", "make_tracing", "onward", "trace_id_of"]

TRACE_KEYS = frozenset({"traceparent", "tracestate"})
"""Of W3C's trace context, in HTTP headers and gRPC metadata."""

Metadata = tuple[tuple[str, str | bytes], ...]
Value = str | int | float | bool


class Tracing:
    """Makes spans and sends them.

    Args:
        provider: Of the SDK.
    """

    def __init__(self, provider: TracerProvider) -> None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self.provider = provider
        self.tracer = provider.get_tracer("flowdex")
        self.propagator = TraceContextTextMapPropagator()

    def start(self, name: str, metadata: Metadata) -> Span:
        """Begin what a request asks of this process; its parent is in the metadata that came with it."""
        from opentelemetry.trace import SpanKind

        carrier = {key: value for key, value in metadata if key in TRACE_KEYS and isinstance(value, str)}
        context = self.propagator.extract(carrier) if carrier else None
        return Span(self, self.tracer.start_span(name, context, SpanKind.SERVER))

    def close(self) -> None:
        """Send what has not been sent, within the exporter's time."""
        self.provider.shutdown()


class Span:
    """A piece of work in a trace."""

    __slots__ = ("_span", "_tracing")

    def __init__(self, tracing: Tracing, span: OtelSpan) -> None:
        self._tracing = tracing
        self._span = span

    @property
    def recording(self) -> bool:
        """Whether it is sampled, so that anybody will see it."""
        return self._span.is_recording()

    def child(self, name: str, attributes: Mapping[str, Value]) -> Span:
        """Begin a call of another process."""
        from opentelemetry.trace import SpanKind

        return Span(
            self._tracing,
            self._tracing.tracer.start_span(name, self._context(), SpanKind.CLIENT, attributes=attributes),
        )

    def onward(self, metadata: Metadata) -> Metadata:
        """The metadata of such a call: the caller's, with this span as the parent."""
        carrier: dict[str, str] = {}
        self._tracing.propagator.inject(carrier, self._context())
        return (*(each for each in metadata if each[0] not in TRACE_KEYS), *carrier.items())

    def end(self, name: str | None = None, *, error: str = "", attributes: Mapping[str, Value] | None = None) -> None:
        """End it.

        Args:
            name: What it turned out to be.
            error: Name of the error that it ended with, empty for none.
            attributes: Facts about it.
        """
        from opentelemetry.trace import Status, StatusCode

        if self._span.is_recording():
            if name:
                self._span.update_name(name)
            if attributes:
                self._span.set_attributes(attributes)
            if error:
                self._span.set_attribute("error.type", error)
                self._span.set_status(Status(StatusCode.ERROR, error))
        self._span.end()

    def _context(self) -> Context:
        from opentelemetry.trace import set_span_in_context

        return set_span_in_context(self._span)


def make_tracing(flow: str, process: str, replica: int | None = None) -> Tracing:
    """Begin to trace in this process.

    Args:
        flow: Name of the flow: `service.namespace`.
        process: The executor's name, or "gateway": `service.name`, unless OTEL_SERVICE_NAME says otherwise.
        replica: The executor's replica: part of `service.instance.id`.

    Raises:
        ConfigurationError: OpenTelemetry's SDK is not installed.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"tracing: true needs {error.name!r}, which is not installed: pip install 'flowdex[tracing]'"
        ) from None
    instance = process if replica is None else f"{process}-{replica}"
    named = {"service.namespace": flow, "service.name": process, "service.instance.id": instance}
    said = OTELResourceDetector().detect().attributes  # by OTEL_RESOURCE_ATTRIBUTES and OTEL_SERVICE_NAME
    own = {key: value for key, value in named.items() if key not in said}
    provider = TracerProvider(resource=Resource.create(own))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Tracing(provider)


def onward(span: Span | None, metadata: Metadata) -> tuple[tuple[str, str], ...]:
    """The trace context of calls that belong to a span; without one that of the metadata, whose trace goes on."""
    found = metadata if span is None else span.onward(())
    return tuple((key, value) for key, value in found if key in TRACE_KEYS and isinstance(value, str))


def trace_id_of(metadata: Metadata) -> str:
    """The id of the trace that metadata belong to; empty for none."""
    for key, value in metadata:
        if key == "traceparent" and isinstance(value, str):
            parts = value.split("-")
            return parts[1] if len(parts) >= 4 else ""
    return ""
