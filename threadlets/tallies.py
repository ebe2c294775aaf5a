"""What has happened on an event loop that changes hands: counted, and the places of stalls."""

from __future__ import annotations

import logging
import sys

from .claims import place_of
from .snapshots import TakeoverStatistics

__all__ = ["Tally"]

logger = logging.getLogger("threadlets")

PLACES = 100  # arbitrary: how many different places of stalls are remembered


class Tally:
    """The figures of one run token. Thread: who holds the token, unless a method says otherwise.

    Attributes:
        takeovers: How often the loop was taken over.
        knows_greenlets: Whoever uses greenlets here has pinned them, or was warned.
    """

    def __init__(self) -> None:
        self.takeovers = 0
        self._ns_away = self._longest = 0
        self._stalls: dict[str, int] = {}
        self.knows_greenlets = False
        self._counted = 0  # the mark of the stall that was counted last

    def took(self) -> None:
        """Count a takeover."""
        self.takeovers += 1
        if not self.knows_greenlets and "greenlet" in sys.modules:
            self.knows_greenlets = True
            if "threadlets.adapters.sqlalchemy" in sys.modules:
                return
            logger.warning(
                "an event loop changes threads, and greenlet is in use, which cannot. For SQLAlchemy, call "
                "threadlets.adapters.sqlalchemy.install(); for others, 'async with threadlets.pinned():' around what "
                "uses greenlets keeps a task on its thread"
            )

    def came_back(self, away: int) -> None:
        """Count a thread that was away for some nanoseconds."""
        self._ns_away += away
        self._longest = max(self._longest, away)

    def stalled(self, cell: list[int], obstacle: str, thread: int) -> None:
        """Count a region that cannot be taken, once. Thread: the sentinel."""
        for since in cell:  # none or one
            if since != self._counted:
                self._counted = since
                place = f"{obstacle}, at {place_of(thread)}"
                if place not in self._stalls and len(self._stalls) >= PLACES:
                    place = "elsewhere"
                self._stalls[place] = self._stalls.get(place, 0) + 1
                logger.debug("an event loop is stalled by a blocking call: %s", place)

    def snapshot(self, away: int, set_aside: int, threshold: int | None) -> TakeoverStatistics:
        """Return all of it, with what the token knows itself. Thread: any."""
        return TakeoverStatistics(
            takeovers=self.takeovers,
            stalls=dict(self._stalls),
            away=away,
            seconds_away=self._ns_away / 1e9,
            longest_away=self._longest / 1e9,
            set_aside=set_aside,
            threshold=float("inf") if threshold is None else threshold / 1e9,
        )
