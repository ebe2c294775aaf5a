"""What the adapters of web servers share: how a request becomes a threadlet of a pool, and what is said if it cannot.

Why one file: whose a request is, how urgent, when it is too late, and what a client is told that cannot be served now,
has nothing to do with the server. Data in, decision out: no clock, no loop (but for ``shut_down``, which closes pools).

    rules = Rules(tag_header="x-tenant", known=tenants, priorities={"/reports": 5, "/health": -10}, deadline=5.0)
    options = rules.read("/reports/7", headers.getlist)     # RequestOptions(priority=5, tags={"tenant:abc"}, ...)

What a client says is not to be trusted:

- A header may be anything. What is not 1 to ``longest`` characters of letters, digits and ``-._~@+`` is no tag; nor are
  two headers of that name. It is answered with 400, or taken for one of the others, as ``bad`` says; never with 500.
- Whoever leaves the header out would escape the limits per tag. So all requests without one share a tag, ``tenant:?``
  (which no client can claim, for the ``?``); so do those of whom ``known`` says no.
- Each new tag is a fresh share of ``FairShare``, a fresh ``Concurrency`` of ``PerTag``: a client that makes up a tenant
  for every request would have all of them. So without ``known`` only ``most`` different ones count at a time, and
  later ones share ``tenant:?``; one that was not seen for ``FORGET`` seconds makes place. That bounds memory, and
  nothing else: let something that knows your tenants write the header, or give ``known``.

Rejected: 429 for a full pool: that blames the client's own rate, and the pool does not know whose it was. 504 for a
deadline: it is for gateways, of what is behind them; here the server itself was too busy, which is 503.

Assumes: paths are as the client sent them, decoded, without the query.
"""

from __future__ import annotations

import asyncio
import logging
import math
import re
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus

from threadlets import Pool
from threadlets.errors import CloseTimeout, DeadlineExceeded, PoolClosed, PoolFull, Shed

__all__ = [
    "NO_OPTIONS",
    "Answer",
    "BadOption",
    "Clearance",
    "Interrupted",
    "Refusal",
    "RequestOptions",
    "Rules",
    "refusal_of",
    "refused",
    "shut_down",
]

logger = logging.getLogger("threadlets")

FORGET = 60.0  # seconds; arbitrary: a tag that was not seen for so long makes place for another one
LOOK = 1.0  # seconds; arbitrary: how often a pool's statistics are looked at, which costs O(tags)
LONGEST_RETRY = 60  # seconds; arbitrary: nobody is sent away for longer by an estimate
MADE = 10_000  # arbitrary: so many options of requests are kept for the next ones
GONE = 499  # what logs and middleware see of a request whose client has not waited; borrowed: nginx's
VALUE = re.compile(r"[A-Za-z0-9._~@+-]+", re.ASCII)
SECONDS = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?", re.ASCII)

Headers = Callable[[str], Sequence[str] | None]  # all values of a header, by its name in small letters


class Interrupted(RuntimeError):
    """Raised into the server when a request's threadlet was stopped after its response had begun.

    There is no way left to say so but to end the connection, which is what servers do with an exception.
    """


class BadOption(ValueError):
    """Raised by what reads options out of a request, if the client is to be told that it is wrong: 400.

    Functions of your own may raise it, too. The client is shown the message.
    """


@dataclass(frozen=True, slots=True)
class RequestOptions:
    """How a request's threadlet is started. ``a | b`` is both: what ``b`` leaves open is as in ``a``; all tags.

    Attributes:
        priority: Lower numbers start first; None: 0.
        tags: What throttles and selections know it by.
        deadline: Seconds from now until which its answer has to be complete; None: no limit.

    Raises:
        TypeError: For a value of a wrong type.
        ValueError: For a number that is NaN, or a deadline that is infinite.
    """

    priority: float | None = None
    tags: Iterable[Hashable] = frozenset()
    deadline: float | None = None

    def __post_init__(self) -> None:
        if isinstance(self.tags, (str, bytes)):
            raise TypeError(f"tags={self.tags!r} would be one tag per character: write tags={{{self.tags!r}}}")
        object.__setattr__(self, "tags", frozenset(self.tags))
        if self.priority is not None:
            _check_number("priority", self.priority)
        if self.deadline is not None:
            _check_number("deadline", self.deadline)
            if math.isinf(self.deadline):
                raise ValueError(f"deadline={self.deadline}: expected finite seconds, or None")

    def __or__(self, other: RequestOptions) -> RequestOptions:
        if not isinstance(other, RequestOptions):
            return NotImplemented
        return RequestOptions(
            priority=self.priority if other.priority is None else other.priority,
            tags=frozenset(self.tags) | frozenset(other.tags),
            deadline=self.deadline if other.deadline is None else other.deadline,
        )


NO_OPTIONS = RequestOptions()


def _check_number(what: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{what}={value!r}: expected a number")
    if math.isnan(value):
        raise ValueError(f"{what}={value!r}: expected a number that can be compared")


class Rules:
    """Options by path and by header, ready made. Thread: loop, if there is a ``tag_header``; else any.

    >>> rules = Rules(tag_header="X-Tenant", known={"a", "b"}, priorities={"/": 1, "/reports": 5})
    >>> rules.read("/reports/7", {"x-tenant": ["a"]}.get)
    RequestOptions(priority=5, tags=frozenset({'tenant:a'}), deadline=None)
    >>> rules.read("/reportsx", {"x-tenant": ["made up"]}.get).tags
    Traceback (most recent call last):
    threadlets.adapters.serving.BadOption: x-tenant: expected 1 to 64 letters, digits or -._~@+
    >>> rules.read("/reportsx", {"x-tenant": ["unknown"]}.get)
    RequestOptions(priority=1, tags=frozenset({'tenant:?'}), deadline=None)

    Args:
        tag_header: The header whose value becomes a tag.
        prefix: What the tag begins with; None: the header's name without ``x-``, and a colon: ``tenant:``.
        known: The values that there are: a collection, or a function of one that says whether it is known.
        longest: The most characters of a value.
        most: The most different values at a time, if ``known`` is not given.
        bad: What becomes of a header that is no tag: ``"reject"``: 400; ``"share"``: it counts as one that is left out.
        priorities: By the beginning of a path, in whole segments: ``"/reports"`` is for ``/reports`` and
            ``/reports/7``; the longest one counts.
        deadline: Seconds, for all.
        deadline_header: A header in which a client may ask for a shorter deadline, in seconds: ``"x-timeout"``.

    Raises:
        TypeError: For something of a wrong type.
        ValueError: For a number that is NaN or too small, or a path that does not begin with ``/``.
    """

    def __init__(
        self,
        *,
        tag_header: str | None = None,
        prefix: str | None = None,
        known: Collection[str] | Callable[[str], object] | None = None,
        longest: int = 64,
        most: int = 1000,
        bad: str = "reject",
        priorities: Mapping[str, float] | None = None,
        deadline: float | None = None,
        deadline_header: str | None = None,
    ) -> None:
        if bad not in ("reject", "share"):
            raise ValueError(f"bad={bad!r}: expected 'reject' or 'share'")
        if isinstance(known, (str, bytes)):
            raise TypeError(f"known={known!r}: expected a collection of values, or a function of one")
        for what, number in (("longest", longest), ("most", most)):
            if isinstance(number, bool) or not isinstance(number, int):
                raise TypeError(f"{what}={number!r}: expected a whole number")
            if number < 1:
                raise ValueError(f"{what}={number}: expected at least 1")
        self._header = None if tag_header is None else tag_header.lower()
        self._prefix = prefix if prefix is not None else f"{(self._header or '').removeprefix('x-')}:"
        self._knows = known if callable(known) or known is None else frozenset(known).__contains__
        self._longest, self._most, self._shares = longest, most, bad == "share"
        self._seen: dict[str, float] = {}  # values, and when each came last; the one that came last is last
        self._made: dict[tuple[str, float | None], RequestOptions] = {}  # by tag and priority
        self._priorities: dict[str, RequestOptions] = {}
        for path, priority in (priorities or {}).items():
            if not isinstance(path, str) or not path.startswith("/"):
                raise ValueError(f"priorities has {path!r}: expected the beginning of a path, like '/reports'")
            self._priorities[path.rstrip("/")] = RequestOptions(priority=priority, deadline=deadline)
        self._otherwise = RequestOptions(deadline=deadline)
        self._deadline_header = None if deadline_header is None else deadline_header.lower()

    def read(self, path: str, headers: Headers, now: float = 0.0) -> RequestOptions:
        """Return the options of a request. O(segments of the path).

        Args:
            path: Its path, decoded, without the query.
            headers: Returns all values of a header, by its name in small letters; None, or nothing, if there is none.
            now: The time, in seconds of any clock.

        Raises:
            BadOption: If the client is to be told that a header is wrong.
        """
        options = self._by_path(path) if self._priorities else self._otherwise
        if self._header is not None:
            options = self._tagged(options, self._tag(headers(self._header) or (), now))
        if self._deadline_header is not None and (asked := headers(self._deadline_header)):
            if len(asked) == 1 and SECONDS.fullmatch(asked[0].strip()):
                seconds = float(asked[0])
                if options.deadline is None or seconds < options.deadline:
                    options = RequestOptions(options.priority, options.tags, seconds)
            elif not self._shares:
                raise BadOption(f"{self._deadline_header}: expected seconds, like 2.5")
        return options

    def _tagged(self, options: RequestOptions, tag: str) -> RequestOptions:
        """Return options with a tag, the same ones for the same tag: to make them anew costs 3 us."""
        key = tag, options.priority
        tagged = self._made.get(key)
        if tagged is None:
            if len(self._made) >= MADE:
                self._made.clear()
            tagged = self._made[key] = options | RequestOptions(tags={tag})
        return tagged

    def _by_path(self, path: str) -> RequestOptions:
        if not path.startswith("/"):  # "*", of OPTIONS
            return self._otherwise
        path = path.rstrip("/")
        while (found := self._priorities.get(path)) is None and path:
            path = path[: path.rindex("/")]
        return self._otherwise if found is None else found

    def _tag(self, values: Sequence[str], now: float) -> str:
        if values:
            value = values[0].strip()
            if len(values) == 1 and len(value) <= self._longest and VALUE.fullmatch(value):
                if self._knows(value) if self._knows is not None else self._has_place(value, now):
                    return self._prefix + value
            elif not self._shares:
                raise BadOption(f"{self._header}: expected 1 to {self._longest} letters, digits or -._~@+")
        return self._prefix + "?"

    def _has_place(self, value: str, now: float) -> bool:
        """Say whether a value is one of the ``most`` that count now."""
        if self._seen.pop(value, None) is None and len(self._seen) >= self._most:
            oldest, seen = next(iter(self._seen.items()))
            if now - seen < FORGET:
                return False
            del self._seen[oldest]
        self._seen[value] = now
        return True


# ----------------------------------------------------------------------------------------------- what is answered


class Refusal(StrEnum):
    """Why a request is not served."""

    FULL = "full"  # the pool is, and rejects
    SHED = "shed"  # the pool was, and something more urgent came
    CLOSED = "closed"  # the pool is: the server shuts down
    LATE = "late"  # its deadline has passed
    STOPPED = "stopped"  # somebody has cancelled its threadlet
    GONE = "gone"  # its client is: whoever stands between learns that there is no answer
    BAD = "bad"  # its options are wrong


@dataclass(frozen=True, slots=True)
class Answer:
    """What a client is sent whose request is not served."""

    status: int
    headers: tuple[tuple[str, str], ...]  # names, in small letters, and values; its length is added
    body: bytes


def refusal_of(error: BaseException) -> Refusal | None:
    """Return what an error of a pool means for the request that it was to hold; None if it is no such error.

    The application may raise the same, of a pool that it uses itself: ask only for what came before it ran, or what
    the pool has done to it.
    """
    for kind, refusal in _REFUSALS:
        if isinstance(error, kind):
            return refusal
    return None


_REFUSALS = (
    (PoolFull, Refusal.FULL),
    (Shed, Refusal.SHED),
    (PoolClosed, Refusal.CLOSED),
    (DeadlineExceeded, Refusal.LATE),
)
_WORDS = {
    Refusal.FULL: "there is too much to do",
    Refusal.SHED: "there is too much to do",
    Refusal.CLOSED: "the server shuts down",
    Refusal.LATE: "there was no time left",
    Refusal.STOPPED: "the request was stopped",
}


def refused(refusal: Refusal, retry_after: int = 1, message: str = "") -> Answer:
    """Return the answer: 400 for bad options, 503 with ``Retry-After`` for the rest; 499 for who will not read it.

    >>> refused(Refusal.FULL, 7).headers[0]
    ('retry-after', '7')

    Args:
        refusal: Why.
        retry_after: Seconds.
        message: What else is to be said: that of a ``BadOption``.
    """
    text = ("content-type", "text/plain; charset=utf-8")
    if refusal is Refusal.BAD:
        said = message.encode("ascii", "replace").decode()
        return Answer(HTTPStatus.BAD_REQUEST, (text,), f"Bad Request: {said}\n".encode())
    if refusal is Refusal.GONE:
        return Answer(GONE, (), b"")
    headers = (("retry-after", str(max(1, retry_after))), text)
    return Answer(HTTPStatus.SERVICE_UNAVAILABLE, headers, f"Service Unavailable: {_WORDS[refusal]}\n".encode())


class Clearance:
    """Estimates when a pool will have worked off what is queued, for ``Retry-After``: how much there is, by its pace.

    The pace is that between the last two looks, a second or more apart; until then 1 s is the answer. It is that of the
    whole queue: who is held back by a limit of its own, as one tenant of many, may have to come again.

    >>> clearance = Clearance()
    >>> clearance.seconds(10.0, queued=50, ended=0), clearance.seconds(12.0, queued=50, ended=20)
    (1, 5)
    """

    def __init__(self) -> None:
        self._at: float | None = None
        self._ended = 0
        self._seconds = 1

    def is_due(self, now: float) -> bool:
        """Say whether it is time for another look; if not, ``last`` is the answer."""
        return self._at is None or now - self._at >= LOOK

    @property
    def last(self) -> int:
        """The last answer."""
        return self._seconds

    def seconds(self, now: float, queued: int, ended: int) -> int:
        """Return whole seconds, from 1 to ``LONGEST_RETRY``.

        Args:
            now: The time, in seconds of any clock.
            queued: How many wait.
            ended: How many have ended so far, in whatever way.
        """
        if self._at is not None and now > self._at:
            pace = (ended - self._ended) / (now - self._at)
            needed = queued / pace if pace > 0 else math.inf if queued else 0
            self._seconds = max(1, math.ceil(min(needed, LONGEST_RETRY)))
        self._at, self._ended = now, ended
        return self._seconds

    def seconds_of(self, pool: Pool, now: float) -> int:
        """Return the same for a pool; its statistics are looked at once a second at most. Thread: loop."""
        if not self.is_due(now):
            return self._seconds
        seen = pool.statistics()
        return self.seconds(now, seen.queued, seen.done + seen.failed + seen.cancelled)


async def shut_down(pools: Iterable[Pool], finish: float, timeout: float) -> None:
    """Close pools as a server stops: what is queued never runs, what runs may finish, then it is cancelled.

    What does not stop even then is named on stderr, and in the log; the server goes on with its own end.

    Args:
        pools: All at once.
        finish: Seconds that what runs may take to finish by itself.
        timeout: Seconds that it may then take to stop.

    Thread: loop. Cancel: point.
    """
    pools = list(pools)
    for pool in pools:
        pool.close()
    ends = await asyncio.gather(
        *(pool.aclose(finish=finish, timeout=timeout) for pool in pools), return_exceptions=True
    )
    for error in ends:
        if isinstance(error, CloseTimeout):
            logger.error("%s", error)
        elif error is not None:
            raise error
