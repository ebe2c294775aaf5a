"""What adapters share that change a foreign library."""

from __future__ import annotations

import warnings
from types import SimpleNamespace

import pytest

from threadlets.adapters.installations import Changes, check_version


class Base:
    """A foreign class."""

    def inherited(self) -> str:
        return "theirs"


class Foreign(Base):
    """Another one."""

    @classmethod
    def method(cls) -> str:
        return "theirs"


def test_a_change_lasts_until_the_last_one_has_gone() -> None:
    """Counted, whoever goes first; the value is that of the newest who is left."""
    there = SimpleNamespace(word="theirs")
    changes: Changes[int] = Changes(lambda changes: changes.exchange(there, "word", "ours"))
    first, second, third = changes.install(1), changes.install(2), changes.install(3)
    assert (there.word, changes.value) == ("ours", 3)
    second.uninstall()
    assert (there.word, changes.value) == ("ours", 3)
    changes.uninstall()
    third.uninstall()  # again, which is nothing
    assert (there.word, changes.value) == ("ours", 1)
    first.uninstall()
    assert (there.word, changes.value) == ("theirs", None)
    changes.uninstall()
    with changes.install(4) as installation:
        assert (there.word, installation.value) == ("ours", 4)
    assert there.word == "theirs"


def test_classmethods_and_inherited_names_come_back_as_they_were() -> None:
    """What stood in the class stands there again, unbound; what did not stand there is gone."""
    method = vars(Foreign)["method"]

    def make(changes: Changes[None]) -> None:
        changes.exchange(Foreign, "method", classmethod(lambda cls: "ours"))
        changes.exchange(Foreign, "inherited", lambda self: "ours")

    with Changes(make).install(None):
        assert Foreign.method() == Foreign().inherited() == "ours"
    assert vars(Foreign)["method"] is method
    assert "inherited" not in vars(Foreign)
    assert Foreign.method() == Foreign().inherited() == "theirs"


def test_what_somebody_else_has_exchanged_meanwhile_stays() -> None:
    """A later patch of somebody else is not taken back."""
    there = SimpleNamespace(word="theirs")
    with Changes[None](lambda changes: changes.exchange(there, "word", "ours")).install(None):
        there.word = "somebody's"
    assert there.word == "somebody's"


def test_a_change_that_fails_leaves_nothing() -> None:
    """What had been changed is as it was, and the next one may succeed."""
    there = SimpleNamespace(word="theirs")
    broken = [True]

    def make(changes: Changes[None]) -> None:
        changes.exchange(there, "word", "ours")
        if broken:
            raise RuntimeError("broken")

    changes = Changes(make)
    with pytest.raises(RuntimeError, match="broken"):
        changes.install(None)
    assert there.word == "theirs"
    broken.clear()
    with changes.install(None):
        assert there.word == "ours"


@pytest.mark.parametrize(("version", "known"), [("2.1.9", True), ("2.0", True), ("2.10.0", False), ("3.1", False)])
def test_versions_that_were_not_tested_are_told(version: str, known: bool) -> None:
    """One warning, that names the adapter, the versions, and what to do."""

    def install() -> None:
        def change(changes: Changes[None]) -> None:
            check_version("threadlets.adapters.example", "example", version, ("2.0", "2.1"), "do this")

        Changes(change).install(None)

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        install()
    assert [str(each.message) for each in told] == [
        f"threadlets.adapters.example was tested with example 2.0 and 2.1, and this is {version}: "
        "if anything goes wrong, do this, or install a version that was tested"
    ] * (not known)
    assert all(each.filename == __file__ for each in told)
