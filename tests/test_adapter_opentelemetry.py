"""The OpenTelemetry adapter: each threadlet has a span, below the right one wherever it runs; and there are metrics.

Over 400 lines: an adapter has one file of tests, as it is one file.
"""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("opentelemetry.sdk")

from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.conftest import Run
from tests.workbench import Gate
from threadlets import (
    Chain,
    Concurrency,
    Contract,
    Host,
    Pool,
    Threadlet,
    arg,
    call_async,
    checkpoint,
    defer,
    events,
    migrate,
    offload,
    threadlet,
    topology,
)
from threadlets.adapters import opentelemetry as adapter

ALWAYS, NEVER = Contract(blocks="always"), Contract(blocks="never")


class Trace:
    """A provider of spans, and what has become of its spans."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = self.provider.get_tracer("tests")

    def mark(self, name: str) -> None:
        """Leave a span that has this name."""
        self.tracer.start_span(name).end()

    @property
    def spans(self) -> list[ReadableSpan]:
        """All that have ended."""
        return list(self.exporter.get_finished_spans())

    def named(self, name: str) -> ReadableSpan:
        """The only one of this name."""
        (span,) = (span for span in self.spans if span.name == name)
        return span

    def path(self, span: ReadableSpan) -> str:
        """The names from the root to a span."""
        assert span.context is not None
        parents = {each.context.span_id: each for each in self.spans if each.context}
        names = [span.name]
        while span.parent is not None:
            assert span.context is not None
            span = parents[span.parent.span_id]
            names.append(span.name)
        return "/".join(reversed(names))

    def paths(self, name: str) -> list[str]:
        """The paths of all spans of this name."""
        return sorted(self.path(span) for span in self.spans if span.name == name)


@pytest.fixture
def traced() -> Iterator[Trace]:
    """A provider for which the adapter is installed; afterwards nothing of that is left."""
    traced = Trace()
    with adapter.install(traced.provider, metrics=False):
        yield traced
    assert not events.listeners
    assert trace.get_current_span() is trace.INVALID_SPAN


def test_the_context_is_kept_across_every_hop(run: Run, traced: Trace) -> None:
    """What is traced inside is below the span of its threadlet: in place, queued, on a worker, away, in a chain."""
    mark = traced.mark

    @threadlet(contract=NEVER)
    def place(name: str) -> None:
        mark(name)

    @threadlet(contract=ALWAYS)
    def worker(name: str) -> None:
        mark(name)
        place("right here")
        call_async(called)

    @threadlet
    async def coroutine() -> None:
        mark("first step")
        await asyncio.sleep(0)
        mark("second step")
        await place("inner")

    async def called() -> None:
        mark("called")
        await coroutine()

    @threadlet
    async def traveller() -> None:
        async with offload():
            mark("offloaded")
            await asyncio.sleep(0)
            mark("offloaded, second step")
        node = topology.machine().nodes[0]
        await migrate(node)
        mark("migrated")
        await migrate(None)
        mark("home")

    @threadlet(contract=ALWAYS)
    def rest(name: str) -> str:
        mark(name)
        return name

    chain = Chain().then(place, "step here").then(rest, arg("name"))

    async def main() -> None:
        with traced.tracer.start_as_current_span("main"):
            await place("in place")
            await worker("on a worker")
            await traveller()
            await chain(name="step there")
            async with Pool(Concurrency(1)) as pool:
                async for _ in pool.map(rest, ["mapped", "mapped", "mapped"]):
                    pass
                with traced.tracer.start_as_current_span("inside"):
                    queued = [pool.start(coroutine), pool.start(place, "queued")]
            mark("after")
            await asyncio.gather(*queued)
        mark("outside")

    run(main)
    gc.collect()
    for path in (
        "main/place/in place",
        "main/worker/on a worker",
        "main/worker/place/right here",
        "main/worker/called",
        "main/traveller/offloaded",
        "main/traveller/offloaded, second step",
        "main/traveller/migrated",
        "main/traveller/home",
        "main/inside/place/queued",
        "main/after",
        "outside",
    ):
        assert traced.paths(path.rpartition("/")[2]) == [path]
    assert traced.paths("mapped") == ["main/rest/mapped"] * 3
    for name in ("first step", "second step", "place/inner"):
        below = traced.paths(name.rpartition("/")[2])
        assert below == [f"main/inside/coroutine/{name}", f"main/worker/coroutine/{name}"]
    assert traced.paths("step here") == ["main/chain/step here"]
    assert traced.paths("step there") == ["main/chain/chain/step there"]  # the rest is one more threadlet


def test_a_taken_over_call_is_still_inside_of_its_span(hands: Run, traced: Trace) -> None:
    """While it blocks, the loop runs others in their own contexts; the span tells that it missed and came back."""

    async def main() -> None:
        gate = Gate()

        @threadlet
        def block() -> None:
            gate()
            traced.mark("after the gate")

        async def other() -> None:
            await asyncio.to_thread(gate.wait_arrived)
            traced.mark("meanwhile")
            gate.open()

        task = asyncio.create_task(other())
        with traced.tracer.start_as_current_span("main"):
            await block()
        await task

    hands(main)
    assert traced.paths("after the gate") == ["main/block/after the gate"]
    assert traced.paths("meanwhile") == ["meanwhile"]
    span = traced.named("block")
    assert [event.name for event in span.events] == ["missed", "resumed"]
    assert span.attributes is not None
    assert span.attributes["threadlets.missed"] is True


def test_a_span_says_what_its_threadlet_was(once: Run, traced: Trace) -> None:
    """Pool, priority, tags, place, time in the queue, state; a failure is its status, a cancel an event."""

    @threadlet(contract=ALWAYS)
    def fail() -> None:
        raise LookupError("nothing there")

    @threadlet
    async def leave() -> None:
        defer(checkpoint)
        async with offload():
            pass

    async def main() -> None:
        async with Pool(Concurrency(1), name="crawler") as pool:
            failed = pool.start(fail, priority=3, tags={"tenant:7", ("b", 1)})
            cancelled = pool.start(leave)
            await asyncio.wait([failed])
            assert isinstance(failed.exception(), LookupError)
            cancelled.cancel("not wanted")
            await asyncio.wait([cancelled])
            await pool.start(leave)

    once(main)
    failed = traced.named("fail")
    attributes = dict(failed.attributes or {})
    assert attributes.pop("threadlets.queued") > 0  # type: ignore[operator]
    assert str(attributes.pop("code.function.name")).endswith("test_a_span_says_what_its_threadlet_was.<locals>.fail")
    assert attributes == {
        "threadlets.pool": "crawler",
        "threadlets.priority": 3.0,
        "threadlets.tags": ("('b', 1)", "tenant:7"),
        "threadlets.place": "worker",
        "threadlets.state": "failed",
    }
    assert failed.status.status_code is trace.StatusCode.ERROR
    assert failed.status.description == "LookupError: nothing there"
    (event,) = failed.events
    recorded = dict(event.attributes or {})
    assert event.name == "exception"
    assert "in fail" in str(recorded.pop("exception.stacktrace"))
    assert recorded == {
        "exception.type": "LookupError",
        "exception.message": "nothing there",
        "exception.escaped": "True",
    }
    cancelled, left = (span for span in traced.spans if span.name == "leave")
    assert cancelled.status.status_code is left.status.status_code is trace.StatusCode.UNSET
    assert [(event.name, dict(event.attributes or {})) for event in cancelled.events][-1] == (
        "cancelled",
        {"reason": "not wanted"},
    )
    assert (left.attributes or {})["threadlets.hops"] == 2
    assert {event.name for event in left.events} == {"missed", "moved", "cleaning"}


def test_what_cannot_be_shown_does_not_end_the_tracing(once: Run, traced: Trace) -> None:
    """A tag, an error and a reason that have no text, a priority that no float can hold."""

    class Mute(Exception):
        def __str__(self) -> str:
            raise LookupError("no text")

    @threadlet(contract=ALWAYS, priority=10**400)
    def fail() -> None:
        raise Mute

    async def main() -> None:
        async with Pool(Concurrency(1)) as pool:
            failed, cancelled = pool.start(fail, tags={Mute()}), pool.start(fail)
            cancelled.cancel(Mute())
            assert isinstance(await asyncio.wait([failed]) and failed.exception(), Mute)

    once(main)
    cancelled, failed = traced.spans
    assert (failed.attributes or {})["threadlets.tags"] == ("<Mute that cannot be shown>",)
    assert failed.status.description == "Mute: <Mute that cannot be shown>"
    assert (cancelled.events[-1].attributes or {})["reason"] == "<CancelledError that cannot be shown>"
    assert len(events.listeners) == len(events.Kind)


def test_a_failure_that_passes_through_many_is_recorded_in_each_and_briefly(once: Run, traced: Trace) -> None:
    """Two hundred await each other when the innermost fails: each span has the innermost frames of it, and no more."""

    @threadlet
    async def fall(depth: int) -> float:
        return 1 / depth if depth == 0 else await fall(depth - 1)

    async def main() -> None:
        with pytest.raises(ZeroDivisionError):
            await fall(200)

    once(main)
    stacks = [str((span.events[-1].attributes or {})["exception.stacktrace"]) for span in traced.spans]
    assert len(stacks) == 201
    assert all("return 1 / depth" in stack and stack.count("\n  File") <= adapter.FRAMES for stack in stacks)


def test_a_call_at_a_host_has_its_span_here(once: Run, traced: Trace) -> None:
    """The host itself runs inside of the span; what it has called elsewhere is not seen."""

    class Elsewhere(Host):
        def __init__(self) -> None:
            self.slots = Concurrency(1)

        async def run(self, entrypoint: Any, args: Any, kwargs: Any, *, priority: float) -> Any:
            traced.mark("sent")
            return entrypoint.function(*args)

    @threadlet(contract=Contract(pure=True))
    def square(n: int) -> int:
        return n * n

    async def main() -> None:
        with traced.tracer.start_as_current_span("main"):
            async with Pool(node=Elsewhere()) as pool:
                assert await pool.start(square, 3) == 9

    once(main)
    assert traced.paths("sent") == ["main/square/sent"]
    assert (traced.named("square").attributes or {})["threadlets.place"] == "host"


def test_only_those_that_are_chosen_have_a_span(once: Run) -> None:
    """``spans`` may be a function of the threadlet; what is inside of others is below the span around these."""
    traced = Trace()

    @threadlet(contract=NEVER)
    def inner() -> None:
        traced.mark("inside")

    @threadlet
    async def outer() -> None:
        await inner()

    async def main() -> None:
        with adapter.install(traced.provider, metrics=False, spans=lambda each: each.entrypoint is outer):
            await outer()
        with adapter.install(traced.provider, metrics=False, spans=False):
            assert not events.listeners
            await outer()
            with adapter.install(traced.provider, metrics=False):
                assert await inner() is None
            await outer()  # what the newest one says holds, and that one is gone

    once(main)
    assert traced.paths("inside") == ["inner/inside", "inside", "inside", "outer/inside"]
    with pytest.raises(TypeError, match="expected True, False, or a function"):
        adapter.install(spans="all")  # type: ignore[arg-type]


def test_a_choice_that_raises_ends_no_tracing(once: Run, caplog: pytest.LogCaptureFixture) -> None:
    """The one it was asked about has no span, and the log says so; the others have theirs."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))

    def choose(each: Threadlet[Any]) -> bool:
        assert each.pool is not None
        return str(each.pool.name or 1 / 0).startswith("c")

    async def main() -> None:
        named, nameless = Pool(name="crawler"), Pool()
        for pool in (named, nameless, named):
            await pool.start(asyncio.sleep, 0)

    with adapter.install(provider, metrics=False, spans=choose):
        once(main)
    assert len(exporter.get_finished_spans()) == 2
    assert "which has no span" in caplog.text


def test_bad_arguments_are_told_at_the_call() -> None:
    """What is no provider, or no pool, is refused."""
    for options in ({"tracer_provider": 3}, {"meter_provider": "a"}, {"pools": 3}):
        with pytest.raises(TypeError, match=next(iter(options))):
            adapter.install(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize("method", ["on_start", "on_end"])
def test_a_failing_processor_breaks_nothing(method: str, once: Run, caplog: pytest.LogCaptureFixture) -> None:
    """It is told nothing more, that is logged, the program goes on, and no span stays current."""

    class Broken(SpanProcessor):
        pass

    def fail(*_: Any) -> None:
        raise OSError("the collector is gone")

    setattr(Broken, method, fail)
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(Broken())

    @threadlet(contract=NEVER)
    def double(n: int) -> int:
        return 2 * n

    async def main() -> None:
        with adapter.install(provider, metrics=False):
            assert await asyncio.gather(*(double(n) for n in range(3))) == [0, 2, 4]
            assert trace.get_current_span() is trace.INVALID_SPAN

    once(main)
    assert [record.message.endswith("told nothing more") for record in caplog.records] == [True]


def test_uninstalling_within_a_call_ends_its_span_and_leaves_nothing_current(once: Run) -> None:
    """What was begun is ended at once; what was made current is taken back when the function has ended."""
    traced = Trace()

    @threadlet(contract=NEVER)
    def undo() -> None:
        adapter.uninstall()
        traced.mark("inside")

    async def main() -> None:
        adapter.install(traced.provider, metrics=False)
        await undo()
        assert trace.get_current_span() is trace.INVALID_SPAN
        adapter.uninstall()

    once(main)
    assert traced.paths("undo") == ["undo"]
    assert not events.listeners


def test_metrics_are_read_when_somebody_collects(once: Run) -> None:
    """Counters, gauges and quantiles of what has a name; nothing any more once it was uninstalled."""
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)

    def figures() -> dict[str, list[tuple[dict[str, Any], Any]]]:
        data = reader.get_metrics_data()
        scopes = data.resource_metrics[0].scope_metrics if data is not None else []
        return {
            metric.name: [(dict(point.attributes), point.value) for point in metric.data.data_points]
            for scope in scopes
            for metric in scope.metrics
        }

    @threadlet(contract=ALWAYS)
    def count_me() -> None:
        pass

    async def main() -> None:
        async with Pool(Concurrency(1), name="measured") as pool:
            with adapter.install(meter_provider=provider, spans=False, pools=[pool], entrypoints=[count_me]):
                for _ in range(3):
                    pool.start(count_me)
                assert figures()["threadlets.pool.queued"] == [({"pool": "measured"}, 2)]
                await pool.drain()
                await asyncio.sleep(adapter.TOGETHER)
                found = figures()
                with adapter.install(meter_provider=provider, spans=False, pools=[], entrypoints=[]):
                    assert "threadlets.pool.queued" not in figures()
            assert figures() == {}
        done = {"pool": "measured", "entrypoint": "count_me", "outcome": "done"}
        assert (done, 3) in found["threadlets.pool.ended"]
        assert ({"entrypoint": "count_me", "place": "worker"}, 3) in found["threadlets.entrypoint.calls"]
        runs = {"pool": "measured", "entrypoint": "count_me"}
        assert found["threadlets.pool.run.count"] == [(runs, 3)]
        assert found["threadlets.pool.run.total"][0][1] > 0
        assert [labels["quantile"] for labels, _ in found["threadlets.pool.run"]] == ["0.5", "0.9", "0.99", "1"]

    once(main)
    provider.shutdown()


def test_with_the_api_alone_no_span_is_kept_or_made_current(once: Run) -> None:
    """Nobody traces: what is current stays that, and no figures are read."""

    @threadlet(contract=NEVER)
    def look() -> trace.Span:
        return trace.get_current_span()

    async def main() -> None:
        with adapter.install(trace.NoOpTracerProvider()):
            assert await look() is trace.INVALID_SPAN

    once(main)


def test_without_the_library_the_error_names_the_extra() -> None:
    """Whoever has not installed it is told how to."""
    code = "import sys; sys.modules['opentelemetry'] = None; import threadlets.adapters.opentelemetry"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=30)
    assert "ImportError: spans and metrics of OpenTelemetry need opentelemetry-api" in done.stderr
    assert "pip install 'threadlets[metrics]'" in done.stderr
