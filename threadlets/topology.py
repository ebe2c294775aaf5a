"""What this machine is made of, and which of its nodes is near to a file, a socket, a disk, a network card.

    from threadlets import topology

    topology.machine().nodes
    topology.node_near("/var/lib/data"), topology.node_near(connection), topology.node_near("eth0")

Here the system is asked; what the answers mean is in ``nodes.py`` and ``sysfs.py``, which take them as arguments.

How a socket is near to something: the kernel keeps on which CPU it has last handled a packet of a connection
(``SO_INCOMING_CPU``); what has come in is in the caches of that CPU, and it stays the same as long as the card's queue
does. Before the first packet, or of a socket that listens, it is the interface that it is bound to, if it is to one.

Rejected:

- ``SO_INCOMING_NAPI_ID``: the queue's number leads to an interface only by a request over netlink, since Linux 6.8; and
  a connection that has one has an incoming CPU too. Only a UDP socket without a peer has the one without the other.
- Going by the address of a socket: Linux takes what is for any of its addresses from any card.
- Reading it all at import: a program that does not ask pays nothing.

Assumes: Linux. Elsewhere a machine is one node, and everything is near to that.
"""

from __future__ import annotations

import os
import socket
import stat
import sys
from functools import cache
from typing import Any, Protocol, cast

from .nodes import Machine, Node, read_machine
from .residences import loop_at
from .syscalls import cpus_of_process
from .sysfs import device_of, named, own_cgroup, text

__all__ = ["Machine", "Node", "machine", "node_near", "read_machine"]


class _Open(Protocol):
    """What has a descriptor: files, sockets."""

    def fileno(self) -> int: ...


class _Transport(Protocol):
    """What asyncio's streams and transports are like."""

    def get_extra_info(self, name: str, default: Any = None) -> Any: ...


def machine(*, again: bool = False) -> Machine:
    """Return what this machine is made of: read at the first call, in about a millisecond, and kept.

    Args:
        again: Read it again, and keep that: after CPUs came or went, limits were changed, or for the memory now free.

    Thread: any. Cancel: none.
    """
    if again:
        _machine.cache_clear()
    return _machine()


@cache
def _machine() -> Machine:
    from pathlib import Path  # here: it takes some milliseconds, and few need it

    linux = sys.platform == "linux"
    return read_machine(
        Path("/sys") if linux else None,
        affinity=cpus_of_process(),
        count=os.cpu_count() or 1,
        memory=(_pages("SC_PHYS_PAGES"), _pages("SC_AVPHYS_PAGES")),
        cgroups=Path("/sys/fs/cgroup") if linux else None,
        cgroup=own_cgroup(text(Path("/proc/self/cgroup"))) if linux else "/",
        loops=loop_at,
    )


def _pages(name: str) -> int | None:
    try:
        pages = os.sysconf(name)
        return pages * os.sysconf("SC_PAGE_SIZE") if pages > 0 else None
    except (AttributeError, OSError, ValueError):  # none of these on Windows; on macOS, not all
        return None


def node_near(
    thing: str | bytes | os.PathLike[str] | os.PathLike[bytes] | int | _Open | _Transport,
    /,
    *,
    of: Machine | None = None,
) -> Node | None:
    """Return the node that something hangs on.

    Its CPUs may be none, or not for this process: ``machine().nearest(node)`` are those to work on.

    Args:
        thing: A network interface or a block device by its name (``"eth0"``, ``"nvme0n1p2"``); any other word is a
            path, and so is what has a slash in it. A path, or an open file or descriptor: the disk that it is on; a
            device is itself. A socket, a transport or a stream of asyncio: where its packets come in.
        of: The machine; this one, if it is None.

    Returns:
        The node; None if it is not known. On a machine with one node, that one.

    Raises:
        FileNotFoundError: There is no interface, device or file of that name.
        OSError: As ``os.stat`` and ``os.fstat`` do.
        TypeError: It is nothing of these, or the bare descriptor of a socket: hand over the socket.

    Thread: any; a path may block as ``os.stat`` does. Cancel: none.
    """
    of = machine() if of is None else of
    if isinstance(thing, str) and "/" not in thing and of.sysfs is not None:
        if named(of.sysfs, "net", thing):
            return of.node_of_interface(thing)
        if named(of.sysfs, "block", thing):
            return of.node_of_block(thing)
    open_thing = thing
    if hasattr(thing, "get_extra_info"):
        open_thing = thing.get_extra_info("socket") or thing.get_extra_info("pipe")
    if hasattr(open_thing, "getsockopt"):
        return _near_socket(open_thing, of)
    return _near_file(os.stat(open_thing if isinstance(open_thing, _NAMES) else _descriptor(open_thing)), of)


_NAMES = (str, bytes, os.PathLike)


def _descriptor(thing: Any) -> int:
    if hasattr(thing, "fileno"):
        thing = thing.fileno()
    if not isinstance(thing, int):
        raise TypeError(
            f"node_near({thing!r}): expected a path, an open file, a socket, or the name of a disk or network interface"
        )
    if stat.S_ISSOCK(os.fstat(thing).st_mode):
        raise TypeError(f"node_near({thing!r}) is the descriptor of a socket: hand over the socket itself")
    return thing


def _near_file(status: os.stat_result, of: Machine) -> Node | None:
    if sys.platform == "win32":
        return of.nodes[0]  # its numbers of devices are none
    device, kind = device_of(status)
    return of.node_of_device(os.major(device), os.minor(device), kind)


def _near_socket(connection: Any, of: Machine) -> Node | None:
    cpu = _option(connection, "SO_INCOMING_CPU")
    if isinstance(cpu, int) and cpu >= 0:
        return of.node_of_cpu(cpu)
    bound = _option(connection, "SO_BINDTODEVICE", 16)  # IFNAMSIZ: the longest name of an interface, and a null
    return of.node_of_interface(
        bound.partition(b"\0")[0].decode("utf-8", "replace") if isinstance(bound, bytes) else ""
    )


def _option(connection: Any, name: str, *size: int) -> int | bytes | None:
    """Return an option of a socket; None if the system, or this kind of socket, does not have it."""
    try:
        return cast("int | bytes", connection.getsockopt(socket.SOL_SOCKET, getattr(socket, name), *size))
    except (AttributeError, OSError):
        return None
