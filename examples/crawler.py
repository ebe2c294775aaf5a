"""A polite crawler: one pool, a limit for all, limits for each host, and what is urgent may change at any moment.

    python examples/crawler.py

The site that it crawls is its own (``sites.py``): hosts that are slow, broken or stuck, or that ask for a pause between
requests. While it runs on a terminal, ``1`` to ``9`` cancel everything of a host, ``+`` and ``-`` change the limit for
all, ``q`` stops. In the end the site itself tells whether anybody was rude.

What to look at:

- ``Crawl.__init__``: the rules, in three lines; a host that holds its pages back holds nobody else's back.
- ``Crawl.discover``: the queue is the frontier. A page that is found again on a shorter way, or by a link that says
  more about it, is given another priority and more tags where it stands.
- ``Crawl.visit``: a deadline that begins when the page does, not when it was found.
- ``Crawl.prefer``, ``drop_host``, ``stop``: one line each, for however many pages.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import math
import re
import sys
from collections import Counter
from urllib.parse import urlsplit

from figures import number
from sites import HOSTS, TOPICS, Site
from tables import aligned
from terminals import Status, keys, listens

from threadlets import Concurrency, PerTag, Pool, Rate, Threadlet, current_threadlet, run, threadlet
from threadlets.progress import Reporter

TOGETHER = 8  # requests at a time, to all hosts
AT_ONCE = 2  # to one host
PER_SECOND = 20.0  # to one host
PATIENCE = 1.0  # seconds for one page
FIRST = -1  # the priority of what is preferred; others have that of their depth: 0 for a front page


class Broken(Exception):
    """Raised when an answer is not a page."""


class Crawl:
    """One crawl.

    Args:
        ports: On which port of 127.0.0.1 each host is, by name.
        pages: How many are wanted.
        topic: Which pages are to be preferred, from a third of the way on.

    Thread: loop.
    """

    def __init__(self, ports: dict[str, int], pages: int, topic: str) -> None:
        self.ports = ports
        self.pages = pages
        self.topic = topic
        self.everybody = Concurrency(TOGETHER)
        self.hosts = PerTag("host:", Concurrency(AT_ONCE), Rate(PER_SECOND))
        self.pool = Pool(self.everybody, self.hosts, name="crawl")
        self.known: dict[str, Threadlet[None]] = {}  # by URL
        self.order: list[bool] = []  # of the pages that came, or failed: whether it is known to be about the topic
        self.failures: Counter[str] = Counter()
        self.preferred: int | None = None  # how many pages there were before
        self.dropped: set[str] = set()  # hosts
        self.end = ""  # why it ended, if it did
        self.status = Status(sys.stderr, self._details) if sys.stderr.isatty() else None
        self.reporter = Reporter(self.status or "pages", range(pages))

    async def run(self, seconds: float) -> None:
        """Crawl until there are enough pages, or no more, or until the time is up."""
        alarm = asyncio.get_running_loop().call_later(seconds, self.stop, "the time was up")
        try:
            with keys(self.press):
                async with self.pool:
                    asked = [self.pool.start(self.ask, host, tags={f"host:{host}"}) for host in self.ports]
                    await asyncio.gather(*asked, return_exceptions=True)
                    for host in self.ports:
                        self.discover(f"http://{host}/", "", depth=0)
        finally:
            alarm.cancel()
            self.reporter.close(finished=len(self.order) == self.pages)

    @threadlet(priority=FIRST)
    async def ask(self, host: str) -> None:
        """Ask a host how it wants to be visited, and keep to it."""
        rules = await self.fetch(host, "/robots.txt")
        if delay := re.search(r"Crawl-delay: ([\d.]+)", rules):
            _, rate = self.hosts[f"host:{host}"]
            rate.limit = min(PER_SECOND, 1 / float(delay[1]))

    @threadlet
    async def visit(self, url: str, depth: int) -> None:
        """Fetch a page, and start with those that it leads to."""
        parts = urlsplit(url)
        page = await self.fetch(parts.netloc, parts.path)
        for target, text in re.findall(r'<a href="([^"]*)">([^<]*)</a>', page):
            self.discover(target, text, depth + 1)

    def discover(self, url: str, text: str, depth: int) -> None:
        """Learn of a page: by its URL, the text of a link to it, and how many links it is away."""
        host = urlsplit(url).netloc
        tags = {f"host:{host}", *(f"about:{topic}" for topic in TOPICS if topic in text)}
        page = self.known.get(url)
        if page is None:
            if not self.end and host not in self.dropped:
                urgency = self._urgency(tags, depth)
                self.known[url] = page = self.pool.start(self.visit, url, depth, priority=urgency, tags=tags)
                page.add_done_callback(self.ended)
        elif page.state == "queued":
            page.tags |= tags
            page.priority = min(page.priority, self._urgency(tags, depth))

    def ended(self, page: Threadlet[None]) -> None:
        """Count a page, whatever has become of it, unless it was cancelled."""
        if page.cancelled():
            return
        error = page.exception()
        if error is not None:
            self.failures[str(error) if isinstance(error, Broken) else type(error).__name__] += 1
        if self.end:
            return  # it came with the last one
        self.order.append(f"about:{self.topic}" in page.tags)
        self.reporter.ended(error is not None)
        if len(self.order) == self.pages // 3:
            self.prefer()
        if len(self.order) == self.pages:
            self.stop("there were enough pages")

    # ---------------------------------------------------------------------------------------------- in bulk

    def prefer(self) -> None:
        """Let pages about the topic go first, from now on."""
        self.preferred = len(self.order)
        found = self.pool.select(tag=f"about:{self.topic}", state="queued").reprioritize(FIRST)
        self.say(f"pages about {self.topic} go first from now on: {found} are queued")

    def drop_host(self, host: str) -> None:
        """Cancel everything of a host, and start no more."""
        self.dropped.add(host)
        self.say(f"{host} is dropped: {self.pool.select(tag=f'host:{host}').cancel('nobody wants it')} cancelled")

    def stop(self, why: str) -> None:
        """Cancel everything that is left."""
        if not self.end:
            self.end = why
            self.pool.cancel(why)

    def press(self, key: str) -> None:
        """Do what a key is for."""
        if key == "q":
            self.stop("q was pressed")
        elif key in "+-":
            self.everybody.limit = max(1, self.everybody.limit + (1 if key == "+" else -1))
            self.say(f"at most {self.everybody.limit} at a time")
        elif key.isdecimal() and 0 < int(key) <= len(self.ports):
            self.drop_host(list(self.ports)[int(key) - 1])

    # ------------------------------------------------------------------------------------------------ small

    async def fetch(self, host: str, path: str) -> str:
        """Return a page, in time; a connection that was opened is closed when this ends, however it does.

        Raises:
            OSError: The connection failed.
            Broken: There is no page, or only a part of it.
            threadlets.errors.DeadlineExceeded: In place of the cancellation that a page meets which takes too long.
        """
        this = current_threadlet()
        assert this is not None
        this.deadline = PATIENCE  # from now on: the time in the queue does not count
        reader, writer = await asyncio.open_connection("127.0.0.1", self.ports[host])
        try:
            writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            answer = await reader.read()
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        head, _, body = answer.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200 "):
            raise Broken(f"status {head[9:12].decode()}")
        if f"Content-Length: {len(body)}\r\n".encode() not in head:
            raise Broken("half a page")
        return body.decode()

    def say(self, text: str) -> None:
        """Tell the user something."""
        if self.status is not None:
            self.status.say(text)
        else:
            print(text, file=sys.stderr)

    def _urgency(self, tags: set[str], depth: int) -> int:
        wanted = self.preferred is not None and f"about:{self.topic}" in tags
        return FIRST if wanted else depth

    def _details(self) -> str:
        hint = f" | 1-{len(self.ports)} drop a host, + - limit, q stop" if listens() else ""
        return f"{len(self.pool):,} in the pool, at most {self.everybody.limit} at a time{hint}"


def report(crawl: Crawl, site: Site) -> tuple[str, bool]:
    """Return what there is to say in the end, and whether nobody was rude."""
    statistics = crawl.pool.statistics()
    heads = ["done", "failed", "cancelled", "wait p50", "p99", "run p50", "p99", "most at once", "in a second"]
    rows, rude = [["", *heads]], []
    for host in site.hosts:
        visits = site.visits[host.name]
        most, busiest = visits.most, visits.busiest()
        allowed = allowed_in_a_second(min(PER_SECOND, 1 / host.delay) if host.delay else PER_SECOND)
        rude += [host.name] if most > AT_ONCE or busiest > allowed else []
        row = [host.name]
        if (seen := statistics.tags.get(f"host:{host.name}")) is not None:
            row += [f"{count:,}" for count in (seen.done, seen.failed, seen.cancelled)]
            times = (seen.waits.p50, seen.waits.p99, seen.runs.p50, seen.runs.p99)
            row += [f"{number(1000 * seconds)} ms" for seconds in times]
        row += [""] * (8 - len(row)) + [f"{most} of {AT_ONCE}", f"{busiest} of {allowed}"]
        rows.append(row)
    lines = [aligned(rows)]
    lines.append(f"It ended because {crawl.end or 'there were no more pages'}.")
    if crawl.failures:
        lines.append("Failed: " + ", ".join(f"{count} x {what}" for what, count in crawl.failures.most_common()) + ".")
    if crawl.preferred and len(crawl.order) > crawl.preferred:
        before, after = crawl.order[: crawl.preferred], crawl.order[crawl.preferred :]
        lines.append(
            f"Known to be about {crawl.topic}: {share(before)} of the first {len(before)} pages, "
            f"{share(after)} of the {len(after)} after these were preferred."
        )
    if rude:
        lines.append(f"RUDE to {', '.join(rude)}: more requests than allowed.")
    else:
        lines.append("Nobody was rude: the hosts themselves have counted (the last two columns).")
    return "\n".join(lines), not rude


def allowed_in_a_second(rate: float) -> int:
    """Return how many requests a host may see in any second, at this many starts per second.

    ``Rate`` has ``burst + 1 + 1.01 * rate`` starts in a second at most. And requests that were started earlier may
    reach the host late: no more than there may be at once.

    >>> allowed_in_a_second(20.0)
    24
    """
    return math.floor(1 + 1 + 1.01 * rate) + AT_ONCE


def share(flags: list[bool]) -> str:
    """Return how many are true, in percent.

    >>> share([True, False, False])
    '33 %'
    """
    return f"{100 * sum(flags) / len(flags):.0f} %"


def main() -> int:
    """Read the command line, crawl, report; return the exit code."""
    options = read_options()
    code = 0
    with Site(HOSTS[: options.hosts]) as site:
        crawl = Crawl(site.ports, options.pages, options.prefer)
        try:
            run(crawl.run(options.seconds))
        except KeyboardInterrupt:
            crawl.end, code = "it was interrupted", 130
    text, polite = report(crawl, site)
    print(text)
    return code or (0 if polite else 1)


def read_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Crawls a site of its own, politely.")
    parser.add_argument("--hosts", type=int, default=5, help=f"1 to {len(HOSTS)} (default: %(default)s)")
    parser.add_argument("--pages", type=int, default=300, help="how many are wanted (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=20.0, help="for all of it, at most (default: %(default)s)")
    parser.add_argument("--prefer", choices=TOPICS, default="parrots", help="from a third of the way on")
    options = parser.parse_args()
    if not 1 <= options.hosts <= len(HOSTS):
        parser.error(f"--hosts must be 1 to {len(HOSTS)}")
    if options.pages < 1 or not 0 < options.seconds < math.inf:
        parser.error("--pages and --seconds must be above 0")
    return options


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:  # before it has begun, or in the report
        sys.exit(130)
