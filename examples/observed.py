"""A small shop that can be watched: a /metrics page for Prometheus, and a line on the console for each span.

    pip install 'threadlets[metrics]' opentelemetry-sdk
    python examples/observed.py

Orders come in. Each is a coroutine; it looks the customer up (from memory, mostly: in place; sometimes from a slow
table), charges the card (on a worker thread: it always blocks) and, one time in four, fails. The program scrapes its
own page in the middle of it, as Prometheus would, says what is interesting there, and ends by itself.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from typing import Any
from urllib.request import urlopen

import threadlets
from threadlets import Concurrency, Contract, Pool, threadlet

INTERESTING = ("pool_queued", "pool_ended_total", "pool_wait_seconds", "entrypoint_calls_total", "loop_takeovers")
SHOWN = {1, 4, 6, 8}  # orders whose spans are printed: some that fail, some that had to wait


class Declined(Exception):
    """The card was not charged."""


@threadlet
def customer(number: int) -> str:
    """Look a customer up: every sixth one is not in memory."""
    if number % 6 == 5:
        time.sleep(0.01)
    return f"customer {number}"


@threadlet(contract=Contract(blocks="always"))
def charge(name: str, number: int) -> float:
    """Charge a card: a request to a bank, which has a library that blocks."""
    time.sleep(0.02)
    if number % 4 == 3:
        raise Declined(f"{name} has no money left")
    return 9.99


@threadlet
async def order(number: int) -> float:
    """Take one order."""
    name = await customer(number)
    return await charge(name, number)


class Console:
    """Prints spans as lines: those of an order together, when it has ended; and only some orders."""

    def __init__(self, span_exporter: Any) -> None:
        self.seen = 0
        self.orders = 0
        self._open: dict[int, list[Any]] = {}  # the spans of an order that has not ended, by its trace

        class Exporter(span_exporter):  # type: ignore[misc]
            def export(_, spans: Any) -> None:
                for span in spans:
                    self.take(span)

        self.exporter = Exporter()

    def take(self, span: Any) -> None:
        """Take one that has ended."""
        self.seen += 1
        below = self._open.setdefault(span.context.trace_id, [])
        if span.parent is not None:
            below.append(span)
            return
        del self._open[span.context.trace_id]
        self.orders += 1
        if self.orders in SHOWN:
            print(f"order {self.orders}")
            for each in [span, *sorted(below, key=lambda each: each.start_time)]:
                print(f"  {'' if each is span else '  '}{line(each)}")


def line(span: Any) -> str:
    """Say in a line what a span has to tell."""
    seconds = (span.end_time - span.start_time) / 1e9
    waited = span.attributes.get("threadlets.queued", 0)
    facts = [span.attributes.get("threadlets.place", "never began")]
    facts += [f"waited {waited * 1000:.1f} ms"] if waited > 0.001 else []
    facts += ["failed" if event.name == "exception" else event.name for event in span.events]
    return f"{span.name:10}{seconds * 1000:6.1f} ms  {', '.join(facts)}"


async def shop(seconds: float, url: str) -> None:
    """Take orders for a while, and look at the page in the middle."""
    loop = asyncio.get_running_loop()
    end, number = loop.time() + seconds, 0
    async with Pool(Concurrency(4), name="orders") as pool:
        handles = []
        while loop.time() < end:
            handles += [pool.start(order, number + n, tags={f"customer:{number + n}"}) for n in range(8)]
            number += 8
            await asyncio.sleep(0.1)
            if number == 16:
                page = (await asyncio.to_thread(lambda: urlopen(url).read())).decode()
                print(f"\nThe page at {url}, some of its {page.count(chr(10))} lines:\n")
                for line in page.splitlines():
                    if any(line.startswith(f"threadlets_{name}") for name in INTERESTING) and not line.endswith(" 0.0"):
                        print(f"  {line}")
                print()
        failures = [handle for handle in handles if isinstance(await settled(handle), Declined)]
    print(f"{number} orders were taken, {len(failures)} cards declined.")


async def settled(handle: threadlets.Threadlet[Any]) -> BaseException | None:
    """Wait for a threadlet; return what it has failed with."""
    await asyncio.wait([handle])  # type: ignore[type-var]  # asyncio takes it for a future
    return handle.exception()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--seconds", type=float, default=1.5, help="how long to take orders (default: 1.5)")
    parser.add_argument("--port", type=int, default=0, help="the port of the /metrics page (default: a free one)")
    options = parser.parse_args()

    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter
    from prometheus_client import CollectorRegistry, start_http_server

    from threadlets.adapters import opentelemetry
    from threadlets.adapters.prometheus import PoolCollector

    console, provider, registry = Console(SpanExporter), TracerProvider(), CollectorRegistry()
    provider.add_span_processor(SimpleSpanProcessor(console.exporter))
    server, thread = start_http_server(options.port, "127.0.0.1", registry)
    with PoolCollector(registry).register(), opentelemetry.install(provider, metrics=False):
        threadlets.run(shop(options.seconds, f"http://127.0.0.1:{server.server_port}/metrics"))
    server.shutdown()
    server.server_close()
    thread.join()
    print(f"{console.seen} spans in all; those of {len(SHOWN)} orders were shown.")


if __name__ == "__main__":
    main()
