"""Jobs of the fault harness that wait for others: for a token, for goods, for a bell; for what a socket has to say."""

from __future__ import annotations

import asyncio
import socket
from contextlib import closing, suppress

from tests.stress.injector import MOMENT, QUICK, QUICK_ASYNC, Injected, Job
from threadlets import Threadlet
from threadlets.descriptors import checkpoint_wait

WORDS = (b"ping\n", b"a longer one, for a change\n")

# -------------------------------------------------------------------------------------- semaphores, conditions, events


def trade(job: Job) -> int:
    """Have a token; bring or take something, or wait for the bell, or ring it: on a thread."""
    shop = job.world.shop
    job.defers(QUICK)
    job.point("trade: begin")
    with shop.tokens:
        shop.enter(job)
        try:
            for _ in range(3):
                job.point("trade: token")
        finally:
            shop.inside.remove(job)
    what = job.dice.randrange(5)
    if what <= 2:
        with shop.shelf:
            job.point("trade: at the shelf")
            if what:
                shop.bring(job.number)
            elif shop.shelf.wait_for(lambda: shop.goods, job.dice.choice([None, None, MOMENT])):
                shop.take(job)
    elif what == 3:
        shop.bell.wait(job.dice.choice([None, None, MOMENT]))
    else:
        shop.ring()
    job.point("trade: end")
    return job.number


async def trade_in_task(job: Job) -> int:
    """Do the same in a coroutine."""
    shop = job.world.shop
    job.defers(QUICK_ASYNC)
    await job.apoint("trade in task: begin")
    async with job.limit("trade in task"):
        async with shop.tokens:
            shop.enter(job)
            try:
                for _ in range(3):
                    await job.apoint("trade in task: token")
            finally:
                shop.inside.remove(job)
        what = job.dice.randrange(5)
        if what <= 2:
            async with shop.shelf:
                await job.apoint("trade in task: at the shelf")
                if what:
                    shop.bring(job.number)
                elif await shop.shelf.wait_for_async(lambda: shop.goods):
                    shop.take(job)
        elif what == 3:
            await shop.bell.wait_async()
        else:
            shop.ring()
    await job.apoint("trade in task: end")
    return job.number


# ------------------------------------------------------------------------------------------------------------ sockets


def client(job: Job) -> int:
    """Ask a server, on a thread that waits for the answer."""
    job.defers(QUICK)
    job.point("client: begin")
    with closing(socket.socket(socket.AF_UNIX)) as near:
        near.connect(job.world.address)
        for word in WORDS:
            near.sendall(word)
            job.point("client: asked")
            left = len(word)
            while left:
                if checkpoint_wait(near, job.dice.choice([None, None, MOMENT / 10])):
                    left -= len(_some(near.recv(left)))
                else:
                    job.point("client: waits on")
    job.point("client: end")
    return job.number


async def streams(job: Job) -> int:
    """Ask a server by asyncio's streams."""
    job.defers(QUICK_ASYNC)
    await job.apoint("streams: begin")
    async with job.limit("streams"):
        near = socket.socket(socket.AF_UNIX)
        try:
            near.connect(job.world.address)
            near.setblocking(False)
            reader, writer = await asyncio.open_unix_connection(sock=near)
        except BaseException:
            near.close()
            raise
        job.defer(_closes_stream, writer)
        for word in WORDS:
            writer.write(word)
            await job.apoint("streams: asked")
            await writer.drain()
            _some(await reader.readline())
    await job.apoint("streams: end")
    return job.number


async def _closes_stream(job: Job, number: int, writer: asyncio.StreamWriter) -> None:
    job.called.append(number)
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


async def talk(job: Job) -> int:
    """Talk to another threadlet, which waits for each word on a worker."""
    near, far = socket.socketpair()
    near.setblocking(False)
    job.defer(_closes_socket, near)
    answers = job.world.begin(job, "echo", far)
    if answers is None:
        far.close()
        return job.number
    answers.add_done_callback(lambda _: far.shutdown(socket.SHUT_RDWR))  # it may never have run
    job.defer(_hangs_up, near, far, answers)
    job.defers(QUICK_ASYNC)
    loop = asyncio.get_running_loop()
    for word in WORDS:
        await loop.sock_sendall(near, word)
        await job.apoint("talk: said")
        left = len(word)
        while left:
            left -= len(_some(await loop.sock_recv(near, left)))
    await job.apoint("talk: end")
    return job.number


def _closes_socket(job: Job, number: int, near: socket.socket) -> None:
    job.called.append(number)
    near.close()


async def _hangs_up(job: Job, number: int, near: socket.socket, far: socket.socket, answers: Threadlet[int]) -> None:
    job.called.append(number)
    near.shutdown(socket.SHUT_RDWR)
    try:
        await asyncio.wait([answers])
    finally:
        far.close()


def echo(job: Job, far: socket.socket) -> int:
    """Answer until the other side hangs up."""
    job.defers(QUICK)
    with suppress(BrokenPipeError):
        while True:
            job.point("echo: waits")
            checkpoint_wait(far)
            said = far.recv(100)
            job.point("echo: heard")
            if not said:
                break
            checkpoint_wait(far, write=True)
            far.sendall(said)
    return job.number


def _some(said: bytes) -> bytes:
    if not said:
        raise Injected("the other side has ended")
    return said
