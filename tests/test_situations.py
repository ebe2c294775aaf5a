"""The comparison of cancellations says what happens: each cell of the page is what is seen here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import pytest

from benchmarks import situations
from benchmarks.situations import BEGIN, END, LIBRARIES, SITUATIONS, is_installed, observe, observe_all, put, text_of
from benchmarks.situations_facts import Errors, Hangs, Section, fail, how_both
from benchmarks.situations_signals import End, Signals

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "cancellation.md"
OURS = ("asyncio", "concurrent.futures", "threadlets")  # what is always here
PATIENT = 3.0  # times as patient: a machine that is busy may be slow to do what comes at once


def page() -> str:
    """Return what is between the page's markers."""
    return PAGE.read_text(encoding="utf-8").split(BEGIN)[1].split(END)[0]


def cells_of_page() -> dict[tuple[str, str], str]:
    """Return the cells of the page, by library and situation."""
    header, _, *lines = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in page().splitlines() if line.startswith("|")
    ]
    assert [line[0] for line in lines] == [f"{n}. {each.title}" for n, each in enumerate(SITUATIONS.values(), 1)]
    rows = zip(SITUATIONS, lines, strict=True)
    return {(library, key): cell for key, line in rows for library, cell in zip(header[1:], line[1:], strict=True)}


def is_as_on_the_page(library: str) -> bool:
    """Say whether a library is here, in the version that the page is about."""
    return is_installed(library) and f"{library} {version(library)}," in " ".join(page().split())


@pytest.fixture(scope="module")
def seen() -> Iterator[dict[tuple[str, str], Future[str]]]:
    """Bring all situations about, side by side; most of their time is waiting."""
    libraries = [library for library in LIBRARIES if library in OURS or is_as_on_the_page(library)]
    with ThreadPoolExecutor(situations.AT_A_TIME) as executor:
        yield observe_all(libraries, executor)


@pytest.mark.parametrize("library", LIBRARIES)
def test_the_page_says_what_happens(seen: dict[tuple[str, str], Future[str]], library: str) -> None:
    """Each cell of a library is what is seen when its situation is brought about."""
    if library not in OURS and not is_as_on_the_page(library):
        pytest.skip(f"{library} is not installed, or not in the version that the page is about")
    told = cells_of_page()
    for key in SITUATIONS:
        found = seen[library, key].result()
        if found != told[library, key]:
            found = observe(library, key, PATIENT)
        assert (key, found) == (key, told[library, key])


@pytest.mark.parametrize("library", LIBRARIES)
def test_each_cell_is_brought_about(library: str) -> None:
    """A library's side knows each situation, or says why there is no such thing in it."""
    module, name = LIBRARIES[library]
    side = getattr(import_module(f"benchmarks.{module}"), name)
    for key in SITUATIONS:
        method = getattr(side, "program" if key == "signals" else key, None)
        assert callable(method) != bool(side.absent.get(key)), (library, key)


def test_words() -> None:
    """Facts that differ are told differently, and a tool is named."""
    assert text_of({"": Section(False, False), "`shield`": Section(True, False)}) == (
        "half done<br>with `shield`: whole, but told before its end"
    )
    assert [Hangs(False, "").words(), Hangs(True, "").words(), Hangs(True, "X").words()] == [
        "hangs",
        "cut off",
        "cut off, `X`",
    ]
    end = End(cleaned=True, in_time=True, at_once=False, ended=True, named=True, code=130)
    assert (
        Signals(end, end._replace(code=143)).words()
        == "both: cleanup runs, ends with the thread, says where (130, 143)"
    )
    ends = Signals(end._replace(in_time=False, named=False), end._replace(ended=False, cleaned=False, code=137)).words()
    assert ends == "Ctrl-C: cleanup after the thread, ends with the thread (130); SIGTERM: no cleanup, hangs (137)"


def test_two_errors_are_found_wherever_they_are() -> None:
    """Raised alone, with the other one as context, deep in groups: each counts as what it is."""

    def outcome(function: Callable[[], object]) -> Errors:
        try:
            function()
        except BaseException as error:
            return how_both(error)
        return how_both(None)

    def chain() -> None:
        try:
            fail("inner")
        finally:
            fail("outer")

    def group() -> None:
        errors = []
        for step in ("inner", "outer"):
            try:
                fail(step)
            except Exception as error:
                errors.append(error)
        raise ExceptionGroup("all", [ExceptionGroup("some", errors[:1]), errors[1]])

    assert outcome(int) == Errors(0, 0)
    assert outcome(lambda: fail("inner")) == Errors(1, 1)
    assert outcome(chain) == Errors(1, 2)
    assert outcome(group) == Errors(2, 2)
    assert [Errors(0, 0).words(), Errors(1, 1).words(), Errors(1, 2).words(), Errors(2, 2).words()] == [
        "none",
        "one, the other is lost",
        "one, the other as its context",
        "both, in an `ExceptionGroup`",
    ]


def test_the_page_around_the_table_stays() -> None:
    """What is written between the markers replaces what was there, and nothing else; twice is as good as once."""
    once = put(f"before\n{BEGIN}\nold\n{END}\nbehind\n", "new")
    assert once == f"before\n{BEGIN}\n\nnew\n\n{END}\nbehind\n"
    assert put(once, "new") == once


def test_a_cell_that_fails_is_told() -> None:
    """A situation that could not be brought about is no cell: the error of its process is raised."""
    with pytest.raises(RuntimeError, match="no such situation"):
        observe("asyncio", "no such situation")
