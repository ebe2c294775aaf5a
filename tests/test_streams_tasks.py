"""An open file that several tasks use, that is cancelled, or that is used on two loops."""

from __future__ import annotations

import asyncio
from asyncio import CancelledError
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Run
from tests.opened import LINES, TEXT, let_nothing_be_in_memory, send_away
from tests.workbench import Gate, rounds, until
from threadlets import batches, files, streams


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return the path of a file of some lines."""
    path = tmp_path / "file"
    path.write_text(TEXT)
    return path


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let nothing be known to be in memory; return from where on it was looked for."""
    return let_nothing_be_in_memory(monkeypatch)


def stop_operations(monkeypatch: pytest.MonkeyPatch) -> Gate:
    """Stop each operation that is done elsewhere when it has been done."""
    gate = Gate()

    def slowly(function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        result = streams._operate(function, args)
        return gate(result)

    send_away(monkeypatch, slowly)
    return gate


async def at(gate: Gate) -> None:
    """Wait until a thread has arrived."""
    await until(lambda: gate._arrived.acquire(blocking=False))


def test_several_tasks_share_the_lines(run: Run, away: list[int], monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    """Each line goes to one of those who iterate, and none is lost or read twice; each sees the order kept."""
    for module in (batches, streams):
        monkeypatch.setattr(module, "BATCH", 300)

    async def main() -> None:
        for mode in ("r", "rb"):
            async with files.open(path, mode) as file:

                async def take(file: Any = file) -> list[Any]:
                    taken = []
                    async for line in file:
                        taken.append(line)
                        if len(taken) % 7 == 0:
                            taken.append(await file.readline())
                            await asyncio.sleep(0)
                    return [int(line.split()[1]) for line in taken if line]

                shares = await asyncio.gather(*(take() for _ in range(5)))
                assert sorted(chain.from_iterable(shares)) == list(range(len(LINES)))
                assert all(share == sorted(share) for share in shares)

    run(main)


def test_somebody_else_takes_the_whole_batch(
    run: Run, away: list[int], monkeypatch: pytest.MonkeyPatch, path: Path
) -> None:
    """Who has read a batch, of which others have left nothing, reads the next one: that is no end."""
    gate = stop_operations(monkeypatch)
    for module in (batches, streams):
        monkeypatch.setattr(module, "BATCH", 1)

    async def main() -> None:
        async with files.open(path) as file:
            reading = asyncio.ensure_future(anext_of(file))
            await at(gate)
            assert await anext(file) == LINES[0]
            gate.open()
            assert await reading == LINES[1]

    run(main)


def test_a_second_operation_waits_for_the_first(
    run: Run, away: list[int], monkeypatch: pytest.MonkeyPatch, path: Path
) -> None:
    """Whatever is begun meanwhile begins where the first one ends; what was queued and cancelled reads nothing."""
    gate = stop_operations(monkeypatch)

    async def main() -> None:
        async with files.open(path) as file:
            first = asyncio.create_task(file.read(10))
            await at(gate)
            second = asyncio.create_task(file.read(10))
            third = asyncio.create_task(file.read(10))
            fourth = asyncio.create_task(file.tell())
            await rounds()
            with pytest.raises(RuntimeError, match="under way"):
                file.detach()
            second.cancel()
            await rounds()
            assert not first.done()
            assert second.cancelled()
            gate.open()
            assert await first == TEXT[:10]
            assert await third == TEXT[10:20]
            assert await fourth == 20

    run(main)


def test_a_cancel_waits_for_the_operation(
    run: Run, away: list[int], monkeypatch: pytest.MonkeyPatch, path: Path
) -> None:
    """Nobody reads into a buffer after the one who has given it was told of the cancel."""
    gate = stop_operations(monkeypatch)

    async def main() -> None:
        buffer = bytearray(5)
        async with files.open(path, "rb") as file:
            reading = asyncio.create_task(file.readinto(buffer))
            await at(gate)
            reading.cancel()
            await rounds()
            assert not reading.done()
            gate.open()
            with pytest.raises(CancelledError):
                await reading
            assert await file.tell() == 5

    run(main)


def test_lines_are_not_lost_by_a_cancel(run: Run, away: list[int], monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    """What was read ahead for one who is cancelled is there for the next one, and the position is told as before."""

    async def main() -> None:
        for mode in ("rb", "r"):
            gate = stop_operations(monkeypatch)
            async with files.open(path, mode) as file:
                reading = asyncio.ensure_future(anext_of(file))
                await at(gate)
                reading.cancel()
                gate.open()
                with pytest.raises(CancelledError):
                    await reading
                if mode == "rb":
                    assert await file.tell() == 0
                else:
                    with pytest.raises(OSError, match="telling position disabled"):
                        await file.tell()
                assert len([line async for line in file]) == len(LINES)

    run(main)


async def anext_of(file: Any) -> Any:
    """Return the next line."""
    return await anext(file)


@pytest.mark.parametrize("queued", [False, True])
def test_a_close_that_is_cancelled(
    run: Run, away: list[int], monkeypatch: pytest.MonkeyPatch, path: Path, queued: bool
) -> None:
    """The file is closed all the same, and what was left is written; also while another operation is under way."""
    gate = stop_operations(monkeypatch)

    async def main() -> None:
        gate._open.clear()
        file = await files.open(path, "w")
        writing = asyncio.create_task(file.write("left"))
        await at(gate)
        if not queued:
            gate.open()
            await writing
            gate._open.clear()
        closing = asyncio.create_task(file.close())
        await (rounds() if queued else at(gate))
        closing.cancel()
        await rounds()
        gate.open()
        with pytest.raises(CancelledError):
            await closing
        await writing
        await until(lambda: file.closed)
        assert path.read_text() == "left"

    run(main)


def test_a_close_that_is_cancelled_with_the_loop(
    once: Run, away: list[int], monkeypatch: pytest.MonkeyPatch, path: Path
) -> None:
    """When the loop ends, nothing stays open, and nothing is told to be."""
    gate = stop_operations(monkeypatch)
    kept: list[files.File[Any]] = []

    async def main() -> None:
        file = await files.open(path, "w")
        kept.append(file)
        writing = asyncio.create_task(file.write("left"))
        await at(gate)
        closing = asyncio.create_task(file.close())
        await rounds()
        closing.cancel()
        await rounds()
        asyncio.get_running_loop().call_soon(gate.open)
        del writing

    once(main)
    assert kept[0].closed
    assert path.read_text() == "left"


def test_a_body_that_is_cancelled(run: Run, path: Path) -> None:
    """A file that was entered is closed when its task is cancelled."""

    async def use(kept: list[Any]) -> None:
        async with files.open(path, "r+") as file:
            await file.write("LINE")
            kept.append(file)
            await asyncio.Event().wait()

    async def main() -> None:
        kept: list[files.File[str]] = []
        task = asyncio.create_task(use(kept))
        await until(lambda: kept)
        await rounds()
        task.cancel()
        with pytest.raises(CancelledError):
            await task
        assert kept[0].closed
        assert path.read_text().startswith("LINE 0")

    run(main)


def test_a_file_on_two_loops(once: Run, away: list[int], monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    """Who has to wait for an operation of another loop is told what is wrong."""
    gate = stop_operations(monkeypatch)

    async def main() -> None:
        async with files.open(path) as file:
            tasks = [asyncio.create_task(file.read(1)) for _ in range(2)]
            await at(gate)
            await rounds()
            failure = await asyncio.to_thread(run_elsewhere, file)
            gate.open()
            assert "different event loop" in str(failure)
            assert await asyncio.gather(*tasks) == ["l", "i"]

    once(main)


def run_elsewhere(file: Any) -> BaseException | None:
    """Read on another loop; return what went wrong."""
    try:
        asyncio.run(file.read(1))
    except RuntimeError as error:
        return error
    return None


@pytest.mark.parametrize("mode", ["r", "r+", "rb+"])
def test_a_cancel_loses_no_line(
    once: Run, away: list[int], monkeypatch: pytest.MonkeyPatch, path: Path, mode: str
) -> None:
    """A line that was read for somebody who has been cancelled meanwhile is that of the next one."""
    gate = stop_operations(monkeypatch)

    async def main() -> None:
        async with files.open(path, mode) as file:
            reading = asyncio.ensure_future(anext_of(file))
            await at(gate)
            reading.cancel()
            await rounds()
            gate.open()
            with pytest.raises(CancelledError):
                await reading
            line = await anext_of(file)
            assert line in (LINES[0], LINES[0].encode())

    once(main)


def test_what_was_in_memory_is_asked_for_again(once: Run, monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    """Who goes back in a file finds out whether it is in memory still."""
    looks: list[int] = []

    def known_until(descriptor: int, offset: int, end: int) -> int:
        looks.append(offset)
        return end

    monkeypatch.setattr(streams, "known_until", known_until)
    monkeypatch.setattr(streams, "takes_probes", lambda status: True)

    async def main() -> None:
        async with files.open(path, "rb", buffering=0) as file:
            for _ in range(3):
                await file.seek(0)
                await file.read(100)
                await file.read(100)
        assert looks.count(0) == 3

    once(main)
