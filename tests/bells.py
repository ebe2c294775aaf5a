"""What the tests of waits for descriptors share: sockets, the two kinds of bells, and who can be woken."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from tests.workbench import until
from threadlets import cancellation, descriptors

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Return two sockets that are connected."""
    near, far = socket.socketpair()
    yield near, far
    near.close()
    far.close()


@pytest.fixture(params=["eventfd", "pipe"])
def bells(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Have waits woken in each of the two ways; return the bells that are free."""
    free: list[Any] = []
    if request.param == "pipe":
        monkeypatch.delattr(os, "eventfd", raising=False)
    monkeypatch.setattr(descriptors, "_free", free)
    yield free
    for bell in free:
        bell.close()


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


async def waits(handle: Any) -> None:
    """Wait until somebody may be woken from his wait."""
    await until(lambda: handle in cancellation._wakes)


def rings(bell: Any) -> bool:
    """Say whether a bell would end a poll."""
    return bool(select.select([bell.reads], [], [], 0)[0])
