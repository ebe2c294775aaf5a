"""The types of a pool as an executor. Checked by mypy and pyright, never run."""

from __future__ import annotations

from concurrent.futures import Executor, Future
from typing import assert_type

from threadlets import Pool, threadlet


@threadlet
def load(path: str) -> bytes:
    return path.encode()


def plain(path: str) -> bytes:
    return path.encode()


executor = Pool().executor(priority=3, tags={"a"})
assert_type(executor.submit(load, "a"), Future[bytes])
assert_type(executor.submit(load.using(priority=1), "a"), Future[bytes])
assert_type(executor.submit(plain, path="a"), Future[bytes])
assert_type(list(executor.map(plain, ["a"])), list[bytes])
every: Executor = executor
