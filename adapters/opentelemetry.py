"""OpenTelemetry: a span for each threadlet, and what the library counts as metrics. It needs the API package alone.

    import threadlets.adapters.opentelemetry

    threadlets.adapters.opentelemetry.install()         # once, with the providers of the program

*Spans.* A span has the name of its entrypoint. It begins when the threadlet is started, ends when that is final, and
its parent is the span that was current for whoever started it. While the function runs, it is the current span: so what
is traced in there - in place, on a worker, across the awaits of a coroutine, in ``offload()`` - is below it, and what
is started there is. How that works: ``threadlets.events`` tells of a beginning in the very context in which the
function will run, and context variables go where a threadlet goes. A function at a host is another process's: its
span is told here, what it traces over there is not.

Attributes: ``threadlets.pool``, ``.priority``, ``.tags``, ``.place`` ("in place", "worker", "host", "right here"),
``.state``, and ``code.function.name``; if it was so, ``.queued`` (seconds until it began), ``.missed``, ``.hops``.
Events tell when it missed, had the loop back, went elsewhere, cleaned up, was cancelled. A failure is recorded, and
makes its status.

*Metrics.* What ``measures.py`` lists, as observable instruments, which are read when somebody collects. OpenTelemetry
has no observable summary: a gauge has the quantiles, with ``.count`` and ``.total`` beside it.

What it costs: nothing if it is not installed. With the SDK, most of it is what a span costs there; with the API alone,
no span is made current, and a call pays some microseconds.

Rejected: to wrap the functions of entrypoints (undecorated ones would be left out, and tracebacks would show it); a
span for each run that equal calls share and for each of these calls (the run has one, below the first of them).

Tested with opentelemetry-api 1.27 and 1.45.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import version
from traceback import format_exception
from types import TracebackType
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import threadlets
from threadlets import Entrypoint, Percentiles, Pool, Threadlet
from threadlets.events import Kind, Record, Subscription, subscribe

from .installations import Changes, Installation, check_version
from .measures import MEASURES, Measure, Reader

try:
    from opentelemetry import context, metrics, trace
    from opentelemetry.metrics import MeterProvider
except ImportError as error:
    raise ImportError(
        "spans and metrics of OpenTelemetry need opentelemetry-api: pip install 'threadlets[metrics]'"
    ) from error

__all__ = ["TESTED", "Installation", "install", "uninstall"]

logger = logging.getLogger("threadlets")

TESTED = ("1",)  # versions of opentelemetry-api: 1.27 and 1.45

Choice = bool | Callable[[Threadlet[Any]], object]
LARGEST = sys.float_info.max  # a priority may be any whole number
FRAMES = 50  # arbitrary: of a failure's traceback, that a span has


def install(
    tracer_provider: trace.TracerProvider | None = None,
    meter_provider: metrics.MeterProvider | None = None,
    *,
    spans: Choice = True,
    metrics: bool = True,
    pools: Iterable[Pool] | Callable[[], Iterable[Pool]] | None = None,
    entrypoints: Iterable[Entrypoint[..., Any]] | Callable[[], Iterable[Entrypoint[..., Any]]] | None = None,
) -> Installation[Any]:
    """Trace threadlets, and offer what they count. It may be called several times; what the newest one says holds.

    Args:
        tracer_provider: Who makes the spans; None: the program's, also if that is set later.
        meter_provider: Who has the metrics; None: the program's, also if that is set later.
        spans: Whether each threadlet has a span; or a function of a ``Threadlet`` that says so, which is called when it
            is started: ``lambda each: each.pool is crawler``.
        metrics: Whether there are metrics.
        pools: Of which pools there are metrics; None: of all that have a name.
        entrypoints: Of which entrypoints there are metrics; None: of all that were decorated, and called.

    Returns:
        What undoes it; also a context manager.

    Raises:
        TypeError: If something is of a wrong type.

    Warns:
        RuntimeWarning: If it was not tested with this version of OpenTelemetry.

    Thread: any.
    """
    if not isinstance(spans, bool) and not callable(spans):
        raise TypeError(f"spans={spans!r}: expected True, False, or a function of a threadlets.Threadlet")
    if tracer_provider is not None and not isinstance(tracer_provider, trace.TracerProvider):
        raise TypeError(f"tracer_provider={tracer_provider!r}: expected a TracerProvider of OpenTelemetry")
    if meter_provider is not None and not isinstance(meter_provider, MeterProvider):
        raise TypeError(f"meter_provider={meter_provider!r}: expected a MeterProvider of OpenTelemetry")
    tracer = trace.get_tracer("threadlets", threadlets.__version__, tracer_provider) if spans else None
    instruments = _instruments_of(meter_provider) if metrics else None
    choice = spans if callable(spans) else None
    installation = _changes.install(_Settings(tracer, choice, instruments, Reader(pools, entrypoints)))
    if spans and _spans is not None:
        _spans.listen()
    return installation


def uninstall() -> None:
    """Undo the last ``install()`` that was not undone; nothing, if there is none. Thread: any."""
    _changes.uninstall()


class _Settings(NamedTuple):
    """What one ``install()`` has said."""

    tracer: trace.Tracer | None
    choice: Callable[[Threadlet[Any]], object] | None
    instruments: _Instruments | None
    reader: Reader


# ------------------------------------------------------------------------------------------------------------ spans


class _Open:
    """A span that has not ended."""

    __slots__ = ("hops", "queued", "span")

    def __init__(self, span: trace.Span, queued: int) -> None:
        self.span = span
        self.queued = queued  # when, in ns
        self.hops = 0


class _Spans:
    """The listener: makes spans, makes them current, ends them. Thread: any."""

    def __init__(self) -> None:
        self._open: WeakKeyDictionary[Threadlet[Any], _Open] = WeakKeyDictionary()  # a loop may be closed before an end
        self._attached: dict[Threadlet[Any], Any] = {}  # how to undo that a span is current
        self._subscriptions: list[Subscription] = []
        self._closed = False
        self._lock = threading.Lock()

    def listen(self) -> None:
        """Be told from now on; who wants metrics alone does not pay for that."""
        with self._lock:
            if not (self._subscriptions or self._closed):
                self._subscriptions.append(subscribe(self._told, *(set(Kind) - {Kind.LEFT})))
                # On its own: what was made current is to be taken back, even if the other one was dropped.
                self._subscriptions.append(subscribe(self._left, Kind.LEFT))

    def close(self) -> None:
        """End all spans; what is current stays so until its function has ended."""
        with self._lock:
            self._closed = True
        for subscription in self._subscriptions[:1] if self._attached else self._subscriptions:
            subscription.close()
        while True:
            try:
                left = list(self._open.values())
                break
            except RuntimeError:  # another thread is still being told something
                continue
        for each in left:
            each.span.end()

    def _told(self, record: Record) -> None:
        threadlet: Threadlet[Any] | None = record.threadlet
        if threadlet is None:
            return
        if record.kind is Kind.BEGAN:
            self._began(threadlet, record)
        elif record.kind is Kind.QUEUED:
            self._begin(threadlet, record)
        elif (found := self._open.get(threadlet)) is None:
            return
        elif record.kind is Kind.ENDED:
            del self._open[threadlet]
            _end(found, threadlet, record.error)
        elif record.kind is not Kind.ADMITTED:
            found.hops += record.kind is Kind.MOVED
            found.span.add_event(str(record.kind), {"threadlets.place": record.place} if record.place else None)

    def _begin(self, threadlet: Threadlet[Any], record: Record) -> _Open | None:
        settings = _changes.value
        if settings is None or settings.tracer is None:
            return None
        if settings.choice is not None:
            try:
                if not settings.choice(threadlet):
                    return None
            except Exception:  # of one threadlet; the others are traced all the same
                logger.exception("spans=%r failed for %r, which has no span", settings.choice, threadlet)
                return None
        if isinstance(settings.tracer, trace.NoOpTracer):
            return None
        attributes = _attributes(threadlet)
        if record.kind is Kind.BEGAN:
            attributes["threadlets.place"] = record.place  # at once, which is cheaper than later
        span = settings.tracer.start_span(threadlet.entrypoint.name, attributes=attributes)
        if not span.is_recording() and span.get_span_context() == trace.get_current_span().get_span_context():
            return None  # nobody traces
        found = self._open[threadlet] = _Open(span, record.time)
        return found

    def _began(self, threadlet: Threadlet[Any], record: Record) -> None:
        found = self._open.get(threadlet)
        if found is not None:
            queued = (record.time - found.queued) / 1e9
            found.span.set_attributes({"threadlets.place": record.place, "threadlets.queued": queued})
        elif not threadlet.done():  # done: it was abandoned just now, and its span has ended
            found = self._begin(threadlet, record)
        if found is None:
            return
        token = context.attach(trace.set_span_in_context(found.span))
        if not threadlet.entrypoint.is_coroutine and record.place != "host":  # their contexts are theirs alone
            self._attached[threadlet] = token

    def _left(self, record: Record) -> None:
        token = self._attached.pop(record.threadlet, None)
        if token is not None:
            context.detach(token)
        if self._closed and not self._attached:
            self._subscriptions[1].close()


def _text(thing: object) -> str:
    """Return what something is as text; it may be anybody's, and must not end all tracing."""
    try:
        return str(thing)
    except Exception:
        return f"<{type(thing).__name__} that cannot be shown>"


def _attributes(threadlet: Threadlet[Any]) -> dict[str, Any]:
    function: Any = threadlet.entrypoint.function
    name = getattr(function, "__qualname__", type(function).__qualname__)
    attributes: dict[str, Any] = {
        "code.function.name": f"{getattr(function, '__module__', None) or 'builtins'}.{name}",
        "threadlets.priority": float(max(-LARGEST, min(threadlet.priority, LARGEST))),
    }
    if threadlet.pool is not None and threadlet.pool.name is not None:
        attributes["threadlets.pool"] = str(threadlet.pool.name)
    if threadlet.tags:
        attributes["threadlets.tags"] = sorted(map(_text, threadlet.tags))
    return attributes


def _described(error: BaseException) -> dict[str, str]:
    """Return what ``Span.record_exception`` records, but no more than the innermost frames.

    A failure passes through all who await it, and each of them has a span: with all frames that would be quadratic.
    """
    module, name = type(error).__module__, type(error).__qualname__
    innermost = deque(_tracebacks(error.__traceback__), maxlen=FRAMES)
    return {
        "exception.type": name if module == "builtins" else f"{module}.{name}",
        "exception.message": _text(error),
        "exception.stacktrace": "".join(format_exception(type(error), error, innermost[0] if innermost else None)),
        "exception.escaped": "True",
    }


def _tracebacks(outermost: TracebackType | None) -> Iterator[TracebackType]:
    while outermost is not None:
        yield outermost
        outermost = outermost.tb_next


def _end(found: _Open, threadlet: Threadlet[Any], error: BaseException | None) -> None:
    span = found.span
    try:
        if span.is_recording():
            state = threadlet.state
            attributes: dict[str, Any] = {"threadlets.state": str(state)}
            if threadlet.missed:
                attributes["threadlets.missed"] = True
            if found.hops:
                attributes["threadlets.hops"] = found.hops
            span.set_attributes(attributes)
            if state == "cancelled":
                span.add_event("cancelled", {"reason": _text(error)} if error is not None and error.args else None)
            elif error is not None:
                span.add_event("exception", _described(error))
                span.set_status(trace.Status(trace.StatusCode.ERROR, f"{type(error).__name__}: {_text(error)}"))
    finally:
        span.end()
        del error


# ---------------------------------------------------------------------------------------------------------- metrics

TOGETHER = 0.05  # seconds; arbitrary: instruments that are asked within this time are told of one reading
_QUANTILES = {"0.5": "p50", "0.9": "p90", "0.99": "p99", "1": "most"}
_Telling = Callable[[Measure], Callable[[Any], list[metrics.Observation]]]


class _Instruments:
    """The instruments of one provider. They are made once, for there is no way to take them back. Thread: any."""

    def __init__(self, provider: metrics.MeterProvider | None) -> None:
        meter = metrics.get_meter("threadlets", threadlets.__version__, provider)
        for measure in MEASURES:
            name, unit = f"threadlets.{measure.name}", "s" if measure.unit else ""
            if measure.kind == "counter":
                meter.create_observable_counter(name, [self._values(measure)], unit, measure.help)
                continue
            meter.create_observable_gauge(name, [self._values(measure)], unit, measure.help)
            if measure.kind == "summary":
                meter.create_observable_counter(
                    f"{name}.count", [self._values(measure, "count")], "", f"How many there were. {measure.help}"
                )
                meter.create_observable_counter(
                    f"{name}.total", [self._values(measure, "total")], unit, f"All of them together. {measure.help}"
                )

    def _values(
        self, measure: Measure, part: str | None = None
    ) -> Callable[[metrics.CallbackOptions], list[metrics.Observation]]:
        def values(_: metrics.CallbackOptions) -> list[metrics.Observation]:
            settings = _changes.value
            if settings is None or settings.instruments is not self:
                return []
            told = []
            for labels, value in settings.reader.read(age=TOGETHER).get(measure, {}).items():
                named = dict(zip(measure.labels, labels, strict=True))
                if not isinstance(value, Percentiles):
                    told.append(metrics.Observation(value, named))
                elif part is not None:
                    told.append(metrics.Observation(getattr(value, part), named))
                elif value.count:
                    for quantile, attribute in _QUANTILES.items():
                        told.append(metrics.Observation(getattr(value, attribute), {**named, "quantile": quantile}))
            return told

        return values


_instruments: WeakKeyDictionary[Any, _Instruments] = WeakKeyDictionary()  # by provider
_lock = threading.Lock()


def _instruments_of(provider: metrics.MeterProvider | None) -> _Instruments:
    key = metrics if provider is None else provider  # the program's may be set later: it is one and the same
    with _lock:
        found = _instruments.get(key)
        if found is None:
            found = _instruments[key] = _Instruments(provider)
    return found


def _change(changes: Changes[_Settings]) -> None:
    check_version(
        "threadlets.adapters.opentelemetry",
        "opentelemetry-api",
        version("opentelemetry-api"),
        TESTED,
        "make spans inside of your functions yourself",
    )
    global _spans
    _spans = _Spans()
    changes.undo_by(_spans.close)


_spans: _Spans | None = None
_changes: Changes[_Settings] = Changes(_change)
