"""Threadlets for asyncio: functions that run in place until they would block.

>>> import asyncio
>>> @threadlet
... def load(path):
...     with open(path) as file:
...         return file.read()
>>> async def main():
...     return len(await load(__file__)) > 0
>>> asyncio.run(main())
True
"""

from . import errors
from .contracts import Contract
from .entrypoints import Call, Entrypoint, threadlet
from .handles import Threadlet
from .homes import current_threadlet
from .pools import Pool
from .selections import Selection
from .snapshots import EntrypointStatistics, PoolStatistics
from .throttles import Concurrency

__all__ = [
    "Call",
    "Concurrency",
    "Contract",
    "Entrypoint",
    "EntrypointStatistics",
    "Pool",
    "PoolStatistics",
    "Selection",
    "Threadlet",
    "current_threadlet",
    "errors",
    "threadlet",
]

__version__ = "0.1.0"
