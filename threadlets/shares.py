"""Rules by tag: a throttle for each tag, and fair turns for all.

Why here and not in several pools: what is queued stays in one order of priority, and one limit holds for all of it
beside those of the tags. What a tag costs is kept in an *account*, made when it first takes something, and forgotten
when it is as good as a new one: a million tags may come by, and only the busy ones take memory.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any, Self, TypeGuard

from .throttles import Throttle, positive

__all__ = ["FairShare", "PerTag"]

FEW = 64  # arbitrary: as many accounts are not worth a look at each
UNIT = 1 << 40  # of virtual time: a start at weight 1; whole numbers, so that nothing is lost however much is counted


class _Tagged(Throttle):
    """A throttle that knows a threadlet by those of its tags that are strings with a prefix."""

    __slots__ = ("_many", "prefix")

    keyed = True

    def __init__(self, prefix: str) -> None:
        if not isinstance(prefix, str):
            raise TypeError(f"{type(self).__name__} prefix {prefix!r}: expected a string, as in 'host:'")
        self.prefix = prefix
        super().__init__()

    def renew(self) -> None:
        """Forget the accounts and who waits: the loop that they belonged to is gone."""
        super().renew()
        self._many = FEW  # so many accounts are worth a look whether some are idle

    def key(self, tags: frozenset[Hashable]) -> frozenset[str]:
        """Return the tags that are strings with the prefix. O(tags)."""
        return frozenset(filter(self._matches, tags))

    def _matches(self, tag: object) -> TypeGuard[str]:
        return isinstance(tag, str) and tag.startswith(self.prefix)

    def _expect(self, tag: object) -> None:
        if not self._matches(tag):
            raise KeyError(f"{tag!r}: expected a tag that starts with {self.prefix!r}")


class PerTag(_Tagged):
    """Throttles for each tag: ``PerTag("host:", Concurrency(2), Rate(1))``.

    Every tag that is a string and starts with ``prefix`` has copies of ``throttles`` for itself. A threadlet without
    such a tag is not held back; one with several needs the consent of all.

    ``per_tag[tag]`` is the throttle of one tag, or the tuple of them if there are several, to look at or to change
    while threadlets run. What was looked at may have been changed, and so it is kept, also while its tag has nothing to
    do.

    >>> from threadlets.throttles import Concurrency
    >>> throttle = PerTag("host:", Concurrency(1))
    >>> a, b = throttle.key(frozenset({"host:a", 7})), throttle.key(frozenset({"host:b", "tenant:3"}))
    >>> throttle.take(a, 0); throttle.ready(a, 0), throttle.ready(b, 0)
    (False, True)
    >>> throttle["host:a"].limit = 2; throttle.ready(a, 0)
    True

    Every method is O(1) for each throttle of each tag of a threadlet; forgetting is O(1) per start, amortized.

    Args:
        prefix: What the tags start with; ``""`` means every string.
        throttles: At least one. Which are copied here; later changes to the originals count for nobody.

    Raises:
        TypeError: If ``prefix`` is not a string, or for something that is no throttle, or one that looks at tags
        itself.
    """

    __slots__ = ("_accounts", "_kept", "_now", "_throttles", "clocked", "lends")

    def __init__(self, prefix: str, *throttles: Throttle) -> None:
        if not throttles:
            raise TypeError("PerTag: expected at least one throttle, as in PerTag('host:', Concurrency(2))")
        for throttle in throttles:
            if not isinstance(throttle, Throttle):
                raise TypeError(f"PerTag: {throttle!r} is no throttle: expected an object like Concurrency(2)")
            if throttle.keyed:
                raise TypeError(f"PerTag: {throttle!r} looks at tags itself: put it beside this one, not in it")
        self._throttles = tuple(throttle.copy() for throttle in throttles)  # nothing is ever taken of these
        self.clocked = any(throttle.clocked for throttle in throttles)
        self.lends = any(throttle.lends for throttle in throttles)
        self._accounts: dict[str, tuple[Throttle, ...]] = {}
        self._kept: set[str] = set()
        super().__init__(prefix)

    def __repr__(self) -> str:
        return f"<PerTag {self.prefix!r}: {', '.join(map(repr, self._throttles))}; {len(self._accounts)} tags in use>"

    def __getitem__(self, tag: str) -> Any:
        self._expect(tag)
        account = self._account(tag)
        self._kept.add(tag)
        self._tidy()
        return account if len(account) > 1 else account[0]

    def renew(self) -> None:
        """Forget what was taken and who waits: the loop that it belonged to is gone. Changed settings stay."""
        super().renew()
        self._now = 0  # the time it was last told
        self._accounts = {tag: self._accounts[tag] for tag in self._kept}
        for throttle in self._all():
            throttle.renew()
        self._many = max(FEW, 2 * len(self._accounts))

    def ready(self, key: frozenset[str], now: int) -> bool:
        """Say whether all throttles of all the tags are ready."""
        self._now = now
        for tag in key:
            for throttle in self._accounts.get(tag, self._throttles):  # no account: as those that nobody takes
                if not throttle.ready(None, now):
                    return False
        return True

    def ready_if_lent(self, key: frozenset[str], now: int) -> bool:
        """Say whether all those are ready that do not count places."""
        self._now = now
        accounts = (self._accounts.get(tag, self._throttles) for tag in key)
        return all(
            throttle.ready_if_lent(None, now) if throttle.lends else throttle.ready(None, now)
            for account in accounts
            for throttle in account
        )

    def due_if_lent(self, key: frozenset[str], now: int) -> int | None:
        """Return the latest time of those that are not ready and do not count places."""
        accounts = (self._accounts.get(tag, self._throttles) for tag in key)
        late = [each for account in accounts for each in account if not each.lends and not each.ready(None, now)]
        times = [throttle.due(None, now) for throttle in late]
        return None if None in times else max((time for time in times if time is not None), default=now)

    def due(self, key: frozenset[str], now: int) -> int | None:
        """Return the latest time that those say which are not ready; ``None`` if one of them says so."""
        self._now = latest = now
        for tag in key:
            for throttle in self._accounts.get(tag, self._throttles):
                if not throttle.ready(None, now):
                    due = throttle.due(None, now)
                    if due is None:
                        return None
                    latest = max(latest, due)
        return latest

    def take(self, key: frozenset[str], now: int) -> None:
        """Count one more as started for each tag."""
        self._now = now
        for tag in key:
            for throttle in self._account(tag):
                throttle.take(None, now)
        self._tidy()

    def give_back(self, key: frozenset[str], now: int, began: int, failed: bool) -> None:
        """Count one as ended for each tag."""
        for tag in key:
            for throttle in self._accounts.get(tag, ()):  # none: all of them had forgotten it before it ended
                throttle.give_back(None, now, began, failed)

    def wait(self, key: frozenset[str], wake: Callable[[], None]) -> None:
        """Call ``wake()`` once, when the throttles that hold the key back may have changed their mind.

        It waits for one that needs a wake-up, if there is one: the others would come too early. If all of them will be
        ready by themselves, any of them may be changed so that it is earlier: it waits for all, and each may wake.
        """
        now, blocked = self._now, list[Throttle]()
        for tag in key:
            if not all(throttle.ready(None, now) for throttle in self._accounts.get(tag, self._throttles)):
                blocked += [throttle for throttle in self._account(tag) if not throttle.ready(None, now)]
        for throttle in blocked:
            if throttle.due(None, now) is None:
                blocked = [throttle]
                break
        for throttle in blocked:
            throttle.wait(None, wake)
        self._tidy()

    def unwait(self, key: frozenset[str], wake: Callable[[], None]) -> None:
        """Forget a wake-up, wherever it was left."""
        for tag in key:
            for throttle in self._accounts.get(tag, ()):
                throttle.unwait(None, wake)

    def copy(self) -> Self:
        """Return a fresh one with the same settings, also of those tags that were changed."""
        fresh = type(self)(self.prefix, *self._throttles)
        fresh._kept = set(self._kept)
        fresh._accounts = {tag: tuple(throttle.copy() for throttle in self._accounts[tag]) for tag in self._kept}
        fresh._many = max(FEW, 2 * len(self._kept))
        return fresh

    def is_idle(self, now: int) -> bool:
        """Say whether every throttle of every tag is idle. O(tags)."""
        return all(throttle.is_idle(now) for throttle in self._all())

    def _all(self) -> Iterator[Throttle]:
        return (throttle for account in self._accounts.values() for throttle in account)

    def _account(self, tag: str) -> tuple[Throttle, ...]:
        account = self._accounts.get(tag)
        if account is None:
            self._accounts[tag] = account = tuple(throttle.copy() for throttle in self._throttles)
        return account

    def _tidy(self) -> None:
        """Forget accounts that are idle, if there are many; those that are left must double before the next look."""
        if len(self._accounts) > self._many:
            now, kept = self._now, self._kept
            self._accounts = {
                tag: account
                for tag, account in self._accounts.items()
                if tag in kept or not all(throttle.is_idle(now) for throttle in account)
            }
            self._many = max(FEW, 2 * len(self._accounts))

    def _check(self) -> None:
        super()._check()
        assert not self._waiting, "who waits does so with the throttle that holds him back"
        assert self._kept <= self._accounts.keys(), "what may have been changed is there"
        assert len(self._accounts) <= self._many, "idle accounts do not pile up"
        assert all(map(self._matches, self._accounts)), "every account has a tag with the prefix"
        for throttle in self._all():
            throttle._check()


class FairShare(_Tagged):
    """Fair turns: of the threadlets that are queued, those of each tag start in proportion to its weight.

    It holds nobody back; it says who goes first, where a limit makes them wait. A tag that comes with a million
    threadlets does not delay the first one of another tag, and what a tag did not use earlier it cannot claim later.
    Shares are of starts, not of time: tags whose threadlets run longer get more of it.

    Only tags count that are strings and start with ``prefix``. Threadlets without such a tag share one account, of the
    default weight; one with several tags goes by the one that has had the most, and is charged to all of them.

    ``fair[tag]`` is the weight of a tag; set or delete it at any time.

    >>> fair = FairShare("tenant:", {"tenant:a": 2})
    >>> a, b = frozenset({"tenant:a"}), frozenset({"tenant:b"})
    >>> turns = ""
    >>> for _ in range(9):
    ...     first = min(a, b, key=fair.rank)
    ...     fair.take(first, 0)
    ...     turns += "a" if first is a else "b"
    >>> turns
    'abaabaaba'

    This is start-time fair queueing (Goyal, Vin and Cheng, SIGCOMM 1996): a start costs its tag 1 / weight of virtual
    time, and virtual time is that of the latest start. Every method is O(tags of the threadlet), amortized.

    Args:
        prefix: What the tags start with; ``""`` means every string.
        weights: The weights of some tags.
        default: The weight of the others.

    Raises:
        TypeError: If ``prefix`` is not a string, ``weights`` not a mapping, or a weight not a number.
        ValueError: If a weight is not finite or not above 0.
        KeyError: If a tag does not start with ``prefix``.
    """

    __slots__ = ("_costs", "_default", "_finish", "_virtual", "_weights")

    ranks = True

    def __init__(self, prefix: str, weights: Mapping[str, float] | None = None, *, default: float = 1.0) -> None:
        self._default, self._weights = default, dict[str, float]()
        self._costs: dict[str | None, int] = {None: self._cost("default weight", default)}
        super().__init__(prefix)
        if weights is not None:
            if not isinstance(weights, Mapping):
                raise TypeError(f"FairShare weights {weights!r}: expected a mapping from tags to numbers")
            for tag, weight in weights.items():
                self[tag] = weight

    def __repr__(self) -> str:
        return f"<FairShare {self.prefix!r}, weights {self._weights}, default {self._default}>"

    def __getitem__(self, tag: str) -> float:
        self._expect(tag)
        return self._weights.get(tag, self._default)

    def __setitem__(self, tag: str, weight: float) -> None:
        self._expect(tag)
        self._change(tag, self._cost(f"weight of {tag!r}:", weight))
        self._weights[tag] = weight

    def __delitem__(self, tag: str) -> None:
        self._expect(tag)
        if tag not in self._weights:
            raise KeyError(f"{tag!r}: it has the default weight anyway")
        self._change(tag, self._costs[None])
        del self._costs[tag], self._weights[tag]

    def renew(self) -> None:
        """Forget what everybody has had, and who waits; the weights stay."""
        super().renew()
        self._virtual = 0
        self._finish: dict[str | None, int] = {}  # where a tag's next start would begin, if later than virtual time

    def rank(self, key: frozenset[str]) -> int:
        """Return the virtual time at which one more would start."""
        rank = self._virtual
        for tag in key or (None,):
            rank = max(rank, self._finish.get(tag, 0))
        return rank

    def take(self, key: frozenset[str], now: int) -> None:
        """Charge one start to each tag; virtual time is that of this start."""
        self._virtual = start = self.rank(key)
        for tag in key or (None,):
            self._finish[tag] = start + self._costs.get(tag, self._costs[None])
        if len(self._finish) > self._many:
            self._forget()

    def copy(self) -> Self:
        """Return a fresh one with the same weights."""
        return type(self)(self.prefix, self._weights, default=self._default)

    def is_idle(self, now: int) -> bool:
        """Say whether nobody has had more than others. O(tags)."""
        self._forget()
        return not (self._finish or self._waiting)

    def _cost(self, what: str, weight: float) -> int:
        return max(1, int(UNIT / positive(f"FairShare {what}", weight)))

    def _change(self, tag: str, cost: int) -> None:
        """Change what a start costs a tag, also what is left to pay of the last one."""
        due = self._finish.get(tag, 0) - self._virtual
        if due > 0:
            self._finish[tag] = self._virtual + due * cost // self._costs.get(tag, self._costs[None])
        self._costs[tag] = cost
        self._wake()

    def _forget(self) -> None:
        """Forget those who have nothing left to pay; those that are left must double before the next look."""
        self._finish = {tag: finish for tag, finish in self._finish.items() if finish > self._virtual}
        self._many = max(FEW, 2 * len(self._finish))

    def _check(self) -> None:
        super()._check()
        assert self._costs.keys() == {None, *self._weights}, "each weight has its cost"
        assert all(map(self._matches, self._weights)), "every weight is that of a tag with the prefix"
        assert len(self._finish) <= self._many, "accounts that are paid do not pile up"
