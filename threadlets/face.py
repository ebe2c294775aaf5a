"""All that is public, in one place: ``threadlets`` hands it out when the first of it is asked for."""

from . import errors, events, files, topology
from .cancellation import checkpoint, holding
from .chainings import Chain
from .chains import AEIOU, NaP, arg, ref
from .cleanups import defer
from .conditions import Condition, Event
from .contracts import Contract
from .descriptors import checkpoint_wait
from .entrypoints import Call, Entrypoint, threadlet
from .errands import call_async
from .handles import Threadlet
from .hosts import Host
from .limits import Adaptive
from .locks import Lock
from .loops import EventLoop, new_event_loop
from .migrations import migrate, offload
from .pools import Pool
from .programs import run
from .progress import Progress
from .regions import blocking, current_threadlet, pinned
from .selections import Selection
from .semaphores import Semaphore
from .shares import FairShare, PerTag
from .snapshots import EntrypointStatistics, GroupStatistics, Percentiles, PoolStatistics, TakeoverStatistics
from .throttles import Concurrency, Rate, Throttle

__all__ = [
    "AEIOU",
    "Adaptive",
    "Call",
    "Chain",
    "Concurrency",
    "Condition",
    "Contract",
    "Entrypoint",
    "EntrypointStatistics",
    "Event",
    "EventLoop",
    "FairShare",
    "GroupStatistics",
    "Host",
    "Lock",
    "NaP",
    "PerTag",
    "Percentiles",
    "Pool",
    "PoolStatistics",
    "Progress",
    "Rate",
    "Selection",
    "Semaphore",
    "TakeoverStatistics",
    "Threadlet",
    "Throttle",
    "arg",
    "blocking",
    "call_async",
    "checkpoint",
    "checkpoint_wait",
    "current_threadlet",
    "defer",
    "errors",
    "events",
    "files",
    "holding",
    "migrate",
    "new_event_loop",
    "offload",
    "pinned",
    "ref",
    "run",
    "threadlet",
    "topology",
]
