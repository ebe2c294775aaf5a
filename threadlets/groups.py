"""Which worker threads serve which node, and which node a call is for.

Why: a function that reads a file, or answers a socket, moves bytes from where the device has put them. On the CPUs of
another node each of them comes over the wire between the two. So the workers are one group for each node, and a call
goes to those that are near to what it is about, if it says what that is: ``Contract(near="path")``.

How: a group is made when it is first used, and its threads are bound to the CPUs of its node. A node that has none for
us - memory alone, or CPUs that are somebody else's - is served by the nearest one that has. On a machine where we may
use one node there is nothing to choose: that is the shared group, no thread is bound, no file is looked up.

What a path is on is asked without waiting for a disk, since it is asked on the loop's thread: of the kernel's cache of
names, and if the file is not in that, of the folder that it is in, and so on. (A file is on the device of its folder,
but for what is mounted over it.) Which node a device hangs on is then kept: devices come and go, and the worst is a
call on the wrong node, which gives the same result.

Rejected: to look it up in a worker: that is one more hop, for each call. To count what cannot be found as an error:
where a call runs changes how long it takes, and nothing else.

Thread: any, for every function. Cancel: none.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import lru_cache
from inspect import Parameter, signature
from typing import Any, NamedTuple

from .probes import MISS, glance
from .syscalls import has_openat2
from .sysfs import device_of
from .topology import Machine, Node, machine, node_near
from .workers import WorkerGroup, shared_group

__all__ = ["Finder", "Site", "finder", "site_at", "site_of_call", "workers_at"]

_groups: dict[tuple[int, frozenset[int]], WorkerGroup] = {}

_MANY = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)

Finder = Callable[[tuple[Any, ...], "dict[str, Any] | None"], Any]  # of a call's arguments, the one that counts


class Site(NamedTuple):
    """A node, and the workers that serve it."""

    node: Node
    workers: WorkerGroup


def workers_at(node: Node, *, of: Machine | None = None) -> WorkerGroup:
    """Return the worker group of a node: the shared one, if there is no other node to work on.

    Args:
        node: One of the machine's.
        of: The machine; this one, if it is None.

    Raises:
        TypeError: If it is no node.
    """
    if not isinstance(node, Node):
        raise TypeError(f"{node!r}: expected a node of topology.machine()")
    of = machine() if of is None else of
    if _is_one(of):
        return shared_group()
    if not node.usable:
        node = of.nearest(node)[0]
    key = node.number, node.allowed
    group = _groups.get(key)
    if group is None:
        group = _groups.setdefault(key, WorkerGroup(f"node-{node.number}", cpus=node.allowed))
    return group


def site_at(node: Node, *, of: Machine | None = None) -> Site:
    """Return a node with the workers that serve it.

    Raises:
        TypeError: If it is no node.
    """
    return Site(node, workers_at(node, of=of))


def site_of_call(
    about: Finder, args: tuple[Any, ...], kwargs: dict[str, Any] | None, *, of: Machine | None = None
) -> Site | None:
    """Return where a call belongs.

    Args:
        about: Finds what the call is about: what ``topology.node_near`` takes.
        args: The call's positional arguments.
        kwargs: Its keyword arguments.
        of: The machine; this one, if it is None.

    Returns:
        The site; None if there is no choice, or it is not known.
    """
    of = machine() if of is None else of
    if len(of.nodes) == 1 or _is_one(of):
        return None
    try:
        thing = about(args, kwargs)
        node = _node_of_path(thing, of) if isinstance(thing, _PATHS) else node_near(thing, of=of)
    except Exception:  # there is no such thing; or it is an object of the user's that raises what it likes
        return None
    return None if node is None else site_at(node, of=of)


def _is_one(machine: Machine) -> bool:
    """Say whether there is one node that we may work on."""
    return len(machine.nodes) == 1 or sum(node.usable for node in machine.nodes) == 1


_PATHS = (str, bytes, os.PathLike)


def _node_of_path(path: Any, of: Machine) -> Node | None:
    """Return the node of what a path is on, without a wait for a disk where the system has a way to ask like that."""
    if not has_openat2():
        return node_near(path, of=of)
    if isinstance(path, str) and "/" not in path:
        node = of.node_of_interface(path) or of.node_of_block(path)
        if node is not None:
            return node
    name, status = os.fspath(path), glance(path)
    while status is MISS:
        folder = os.path.dirname(name) or (b"." if isinstance(name, bytes) else ".")
        if folder == name:
            return None
        status = glance(name := folder)
    if not isinstance(status, os.stat_result):  # there is no such file
        return None
    return _node_of_device(of, *device_of(status))


@lru_cache(maxsize=256)
def _node_of_device(of: Machine, device: int, kind: str) -> Node | None:
    return of.node_of_device(os.major(device), os.minor(device), kind)


# ------------------------------------------------------------------------------------------ what a call is about


def finder(function: Callable[..., Any], near: str | None) -> Finder:
    """Return what takes the argument out of a call that says where it belongs; None if the call has none.

    Args:
        function: What is called.
        near: The name of that argument; None: the first one that is a path object, an open file, a socket, or a
            transport or a stream of asyncio.

    Raises:
        ValueError: If the function has no parameter of that name.
    """
    if near is None:
        return _first_place
    try:
        parameters = signature(function).parameters
    except (TypeError, ValueError):
        raise ValueError(f"near={near!r}: what the parameters of {function!r} are called is not known") from None
    parameter = parameters.get(near)
    if parameter is None or parameter.kind in _MANY:
        names = [name for name, each in parameters.items() if each.kind not in _MANY]
        raise ValueError(f"near={near!r}: {function!r} has {', '.join(map(repr, names)) or 'no parameters'}")
    place = list(parameters).index(near) if parameter.kind is not Parameter.KEYWORD_ONLY else sys.maxsize
    default = None if parameter.default is Parameter.empty else parameter.default

    def find(args: tuple[Any, ...], kwargs: dict[str, Any] | None) -> Any:
        if place < len(args):
            return args[place]
        return default if kwargs is None else kwargs.get(near, default)

    return find


def _first_place(args: tuple[Any, ...], kwargs: dict[str, Any] | None) -> Any:
    return next(filter(_is_place, (*args, *(kwargs or {}).values())), None)


def _is_place(thing: Any) -> bool:
    return isinstance(thing, os.PathLike) or any(hasattr(thing, name) for name in _OPEN)


_OPEN = ("fileno", "getsockopt", "get_extra_info")  # files, sockets, transports and streams
