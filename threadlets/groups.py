"""Which worker threads serve which node."""

from __future__ import annotations

from .topology import Node, machine
from .workers import WorkerGroup, shared_group

__all__ = ["workers_at"]


def workers_at(node: Node) -> WorkerGroup:
    """Return the worker group of a node; for now there is one for all.

    Raises:
        TypeError: If it is no node.
    """
    if not isinstance(node, Node):
        raise TypeError(f"{node!r}: expected a node of topology.machine()")
    machine()
    return shared_group()
