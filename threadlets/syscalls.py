"""What the operating system says about a thread; where it cannot say, None."""

from __future__ import annotations

__all__ = ["evidence", "switches"]

try:
    from resource import RUSAGE_THREAD, getrusage
except ImportError:  # not Linux: Windows has no resource module, macOS no usage per thread

    def switches() -> tuple[int, int] | None:
        """Return None: this platform does not count how often one thread has given up its CPU."""
        return None

else:

    def switches() -> tuple[int, int] | None:
        """Return how often the calling thread has given up its CPU: to wait, and because the system took it away.

        Costs 0.4 us. A wait for the interpreter lock counts as a wait. Thread: any.

        Source: ``ru_nvcsw`` and ``ru_nivcsw`` of getrusage(2).
        """
        usage = getrusage(RUSAGE_THREAD)
        return usage.ru_nvcsw, usage.ru_nivcsw


def evidence(before: tuple[int, int] | None) -> tuple[bool | None, bool]:
    """Say whether this thread has blocked since, None if that was not measured, and whether it was only preempted.

    Args:
        before: What ``switches()`` returned then, on this thread; None: it was not asked.
    """
    after = None if before is None else switches()
    if before is None or after is None:
        return None, False
    blocked = after[0] != before[0]
    return blocked, not blocked and after[1] != before[1]
