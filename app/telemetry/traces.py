"""Traces by OpenTelemetry, where TRACES_ENDPOINT is set: a span for each request, in it decode, queue and predict.

Nothing of OpenTelemetry is imported otherwise. Spans are made when the request has ended, from moments that are
measured anyway, and sent by a thread.
"""

from __future__ import annotations

import atexit
import time
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

from app import __version__
from app.config import Settings

# Callers' own: which trace a request belongs to (W3C Trace Context).
PARENT_KEY = "HTTP_TRACEPARENT"
STATE_KEY = "HTTP_TRACESTATE"
REQUEST_ID_KEY = "HTTP_X_REQUEST_ID"
# Machines ask these all the time; they are traced when the caller says so.
UNTRACED = frozenset({"/livez", "/readyz", "/startupz", "/metrics"})
SEND_SECONDS = 5
FLUSH_MS = 3000

_tracer: Any = None
_current: ContextVar[Trace | None] = ContextVar("trace", default=None)


class Trace:
    """One request on its way; used by one thread."""

    def __init__(self, environ: Mapping[str, Any]) -> None:
        self._environ = environ
        self._began = time.perf_counter()
        # perf_counter has no known beginning; spans have moments of the wall.
        self._zero_ns = time.time_ns() - int(self._began * 1e9)
        self._parts: list[tuple[str, float, float, dict[str, Any]]] = []
        self._token = _current.set(self)

    def note(self, name: str, began: float, ended: float, **attributes: Any) -> None:
        """A part of it, from and to moments of ``time.perf_counter``."""
        self._parts.append((name, began, ended, attributes))

    def end(self, method: str, route: str, status: str) -> None:
        """Make the spans and leave them to the thread that sends."""
        from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context

        _current.reset(self._token)
        span = _tracer.start_span(
            f"{method} {route}",
            _context_of(self._environ),
            SpanKind.SERVER,
            {
                "http.request.method": method,
                "http.route": route,
                "http.response.status_code": int(status),
                "cask.request_id": str(self._environ.get(REQUEST_ID_KEY, "")),
            },
            start_time=self._moment(self._began),
        )
        if status >= "500":
            span.set_status(Status(StatusCode.ERROR))
        inside = set_span_in_context(span)
        for name, began, ended, attributes in self._parts:
            part = _tracer.start_span(name, inside, attributes=attributes, start_time=self._moment(began))
            part.end(self._moment(ended))
        span.end(self._moment(time.perf_counter()))

    def _moment(self, seconds: float) -> int:
        return self._zero_ns + int(seconds * 1e9)


def configure(settings: Settings, role: str) -> None:
    """Make traces in this process from here on, where the settings say so."""
    global _tracer
    endpoint = settings.traces_endpoint.get_secret_value()
    if not endpoint or _tracer is not None:
        return
    # 100 ms, only where somebody wants them.
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

    about = {
        "service.name": "cask",
        "service.version": __version__,
        "service.instance.id": settings.server_name,
        "deployment.environment.name": settings.env,
        "cask.role": role,
    }
    provider = TracerProvider(
        resource=Resource.create(about),
        sampler=ParentBased(TraceIdRatioBased(settings.traces_share)),
        shutdown_on_exit=False,
    )
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint, timeout=SEND_SECONDS)))
    atexit.register(provider.force_flush, FLUSH_MS)
    _tracer = provider.get_tracer("cask", __version__)


def begin(environ: Mapping[str, Any]) -> Trace | None:
    """A request has come; None where no traces are made."""
    if _tracer is None or (environ.get("PATH_INFO") in UNTRACED and PARENT_KEY not in environ):
        return None
    return Trace(environ)


def note_prediction(began: float, decoded: float, timings: Mapping[str, float], **attributes: Any) -> None:
    """Where the time of one prediction went: moments of ``time.perf_counter``; ``timings`` in milliseconds.

    The engine tells how long its two steps took; they are placed at the end of the way to it and back.
    """
    trace = _current.get()
    if trace is None:
        return
    answered = decoded + timings["engine"] / 1000
    computed_from = answered - timings["predict"] / 1000
    trace.note("decode", began, decoded, **attributes)
    trace.note("engine queue", computed_from - timings["queue"] / 1000, computed_from, **attributes)
    trace.note("predict", computed_from, answered, **attributes)


def _context_of(environ: Mapping[str, Any]) -> Any:
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    given = {"traceparent": environ.get(PARENT_KEY, ""), "tracestate": environ.get(STATE_KEY, "")}
    return TraceContextTextMapPropagator().extract({name: value for name, value in given.items() if value})
