"""Contracts: the words they take, the contradictions they refuse, and that they cannot change."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import pytest

from threadlets import Contract

BLOCKS = ("never", "maybe", "always")
AFFINITIES = ("any", "home", "one", "one:db", "one: ", "one:one")
CONTRADICTIONS = {("always", "home"), ("never", "one"), ("never", "one:db"), ("never", "one: "), ("never", "one:one")}


def test_default() -> None:
    """A contract that says nothing lets the library learn, on any thread, and lets functions end."""
    contract = Contract()
    assert (contract.blocks, contract.affinity, contract.cancel) == ("maybe", "any", "wait")


@pytest.mark.parametrize(("blocks", "affinity"), list(itertools.product(BLOCKS, AFFINITIES)))
def test_combinations(blocks: Any, affinity: str) -> None:
    """Every pair of promises holds together, except for those that contradict each other."""
    if (blocks, affinity) in CONTRADICTIONS:
        with pytest.raises(ValueError, match="choose one"):
            Contract(blocks=blocks, affinity=affinity)
    else:
        contract = Contract(blocks=blocks, affinity=affinity)
        assert (contract.blocks, contract.affinity) == (blocks, affinity)


@pytest.mark.parametrize(
    "words",
    [
        {"blocks": "sometimes"},
        {"blocks": None},
        {"blocks": ["never"]},
        {"blocks": True},
        {"affinity": "two"},
        {"affinity": "one:"},
        {"affinity": "ones"},
        {"affinity": ""},
        {"affinity": None},
        {"affinity": b"any"},
        {"cancel": "now"},
        {"cancel": None},
    ],
    ids=str,
)
def test_unknown_words(words: dict[str, Any]) -> None:
    """A word that means nothing here is refused, and the error repeats it beside those that are expected."""
    [(name, word)] = words.items()
    with pytest.raises(ValueError) as caught:
        Contract(**words)
    assert str(caught.value).startswith(f"{name}={word!r}: expected ")


@pytest.mark.parametrize("cancel", ["wait", "abandon"])
def test_cancel(cancel: Any) -> None:
    """Both words for what cancelling does are taken."""
    assert Contract(cancel=cancel).cancel == cancel


def test_frozen() -> None:
    """A contract is a value: equal to its like, hashable, and never changed; replacing a promise checks it again."""
    contract = Contract(blocks="always")
    assert contract == Contract(blocks="always")
    assert len({contract, Contract(blocks="always"), Contract()}) == 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        contract.blocks = "never"  # type: ignore[misc]
    with pytest.raises(ValueError, match="choose one"):
        dataclasses.replace(contract, affinity="home")
