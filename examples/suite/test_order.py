"""What runs in any order has to be right in any order: ``--threadlets-seed=random`` tries another one each time."""

from __future__ import annotations

import pytest
from bookshop import Account

from threadlets import Concurrency, Pool, threadlet


@pytest.mark.threadlets
async def test_nobody_pays_more_than_he_has() -> None:
    account, orders = Account(100), [60, 30, 20, 50]

    @threadlet
    async def order(amount: int) -> int:
        return amount * await account.pay(amount)

    async with Pool(Concurrency(2)) as pool:
        paid = [pool.start(order, amount) for amount in orders]
    assert account.balance == 100 - sum(handle.result() for handle in paid) >= 0
