"""Hours that take milliseconds: ``virtual_clock``."""

from __future__ import annotations

import asyncio

import pytest
from bookshop import couriers, deliver
from conftest import Courier

from threadlets.errors import DeadlineExceeded


async def test_a_courier_who_is_out_is_asked_again_later_and_later(courier: Courier, virtual_clock) -> None:
    assert await deliver(courier.send, "a book") == 4
    assert virtual_clock.elapsed == pytest.approx(60 + 120 + 240)


async def test_couriers_take_ten_an_hour(courier: Courier, virtual_clock) -> None:
    courier.out = 0
    async with couriers() as pool:
        for number in range(25):
            pool.start(deliver, courier.send, f"book {number}")
    assert len(courier.delivered) == 25
    assert virtual_clock.elapsed == pytest.approx(24 * 360)


async def test_who_is_not_there_by_noon_is_not_waited_for(courier: Courier, virtual_clock) -> None:
    async with couriers() as pool:
        handle = pool.start(deliver, courier.send, "a book", deadline=300)
        with pytest.raises(DeadlineExceeded):
            await handle
    assert virtual_clock.elapsed == pytest.approx(300)


def test_a_loop_of_your_own_goes_by_it_too(courier: Courier, virtual_clock) -> None:
    async def main() -> None:
        await asyncio.sleep(86400)

    with asyncio.Runner(loop_factory=virtual_clock.new_event_loop) as runner:
        runner.run(main())
    assert virtual_clock.elapsed >= 86400
