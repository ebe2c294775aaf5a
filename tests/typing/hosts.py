"""What a host, and what moves to one, is for type checkers."""

from typing import Any, assert_type

from threadlets import Concurrency, Contract, Entrypoint, Host, Pool, Threadlet, threadlet, topology
from threadlets.topology import Node


class Mine(Host):
    def __init__(self) -> None:
        self.slots = Concurrency(3)

    def check(self, entrypoint: Entrypoint[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        assert entrypoint.contract.pure

    async def run(
        self, entrypoint: Entrypoint[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], *, priority: float
    ) -> Any:
        return entrypoint.function(*args, **kwargs)


@threadlet(contract=Contract(pure=True, near="path"))
def size(path: str) -> int:
    return len(path)


async def main() -> None:
    node = topology.machine().nodes[0]
    async with Pool(node=Mine()) as there, Pool(node=node) as here:
        handle = there.start(size, "a")
        assert_type(handle, Threadlet[int])
        assert_type(handle.node, Node | Host | None)
        for target in (here, node, Mine()):
            assert_type(there.select().move(target), int)
        there.select().move("here")  # type: ignore[arg-type]
        Pool(node=3)  # type: ignore[arg-type]
