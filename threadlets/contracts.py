"""What a programmer promises about a function, and what the library promises in return."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Contract"]

_BLOCKS = ("never", "maybe", "always")
_CANCEL = ("wait", "abandon")
_PLACEMENT = ("any", "near")


@dataclass(frozen=True, slots=True)
class Contract:
    """The promises of one entrypoint.

    Attributes:
        blocks: ``"never"``: run it in place, unguarded. ``"always"``: send it straight to a worker thread.
            ``"maybe"`` (the default): the library learns from its calls where it should run.
        affinity: Which threads may run it. ``"any"``; ``"home"``: only the event loop's own thread, in place (GUI
            toolkits); ``"one"``: all its calls on one worker thread of its own, one after the other (connections that
            check their thread); ``"one:NAME"``: the same thread for all entrypoints that give the same name.
            Functions of two such threads that call each other in a circle wait for ever.
        cancel: What ``cancel()`` does to a plain function that already runs on a worker. ``"wait"`` (the default): the
            threadlet becomes cancelled when the function has stopped. ``"abandon"``: at once; the function runs on
            unobserved, and keeps its place in its pool's throttles until it stops.
        pure: What it returns depends on its arguments alone, and it changes nothing. Equal calls in one pool that come
            while one goes on share its run, and its result is the same object for all; cancelling one of them does not
            cancel the others. Equal are arguments of the same types that are equal, and hashable.
        cleanup: How many seconds all that a call has put off with ``defer`` may take together; ``inf``: any time.
        placement: Which workers run what does not run in place. ``"any"``; ``"near"``: those on the node that is near
            to what the call is about, its first argument that is a path object, an open file, a socket, or a transport
            or a stream of asyncio; any, if that is not known.
        near: The name of the argument that the call is about, which may also be a path as a string; see
            ``topology.node_near``. It implies ``placement="near"``.

    Raises:
        TypeError: If ``pure`` is neither True nor False, ``cleanup`` no number, or ``near`` no string.
        ValueError: For an unknown word, promises that contradict each other, or a ``cleanup`` of 0 or less, or NaN.
    """

    blocks: Literal["never", "maybe", "always"] = "maybe"
    affinity: str = "any"
    cancel: Literal["wait", "abandon"] = "wait"
    pure: bool = False
    cleanup: float = 5.0
    placement: Literal["any", "near"] = "any"
    near: str | None = None

    def __post_init__(self) -> None:
        """Refuse words that mean nothing here."""
        if self.blocks not in _BLOCKS:
            raise ValueError(f"blocks={self.blocks!r}: expected one of {', '.join(map(repr, _BLOCKS))}")
        if self.cancel not in _CANCEL:
            raise ValueError(f"cancel={self.cancel!r}: expected one of {', '.join(map(repr, _CANCEL))}")
        affinity = self.affinity
        if not isinstance(affinity, str) or not (
            affinity in ("any", "home", "one") or (affinity.startswith("one:") and len(affinity) > len("one:"))
        ):
            raise ValueError(f"affinity={affinity!r}: expected 'any', 'home', 'one' or 'one:NAME'")
        if not isinstance(self.pure, bool):
            raise TypeError(f"pure={self.pure!r}: expected True or False")
        if isinstance(self.cleanup, bool) or not isinstance(self.cleanup, (int, float)):
            raise TypeError(f"cleanup={self.cleanup!r}: expected seconds")
        if not self.cleanup > 0:
            raise ValueError(f"cleanup={self.cleanup!r}: expected more than 0 seconds; inf: as long as it takes")
        if self.placement not in _PLACEMENT:
            raise ValueError(f"placement={self.placement!r}: expected one of {', '.join(map(repr, _PLACEMENT))}")
        if self.near is not None:
            if not isinstance(self.near, str):
                raise TypeError(f"near={self.near!r}: expected the name of an argument")
            object.__setattr__(self, "placement", "near")
        if affinity != "any" and self.placement == "near":
            raise ValueError(f"affinity={affinity!r} is one thread, placement='near' one of several: choose one")
        if affinity == "home" and self.blocks == "always":
            raise ValueError("affinity='home' runs on the event loop's thread, blocks='always' never does: choose one")
        if affinity.startswith("one") and self.blocks == "never":
            raise ValueError("affinity='one' runs on a worker, blocks='never' runs in place: choose one")
