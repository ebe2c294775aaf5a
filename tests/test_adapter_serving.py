"""What the adapters of servers share: options out of requests, answers, estimates, the end of pools."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import Run
from tests.workbench import Gate, entrypoint, forever, rounds, until
from threadlets import Concurrency, Pool
from threadlets.adapters import serving
from threadlets.adapters.serving import BadOption, Clearance, Refusal, RequestOptions, Rules, refusal_of, refused
from threadlets.errors import DeadlineExceeded, PoolClosed, PoolFull, Shed


def headers(**values: str) -> Callable[[str], list[str] | None]:
    """Return headers that each came once."""
    return {name.replace("_", "-"): [value] for name, value in values.items()}.get


def test_options_add_up() -> None:
    """What the later ones leave open is as in the earlier ones; tags are united."""
    whole = RequestOptions(priority=1, tags={"a"}, deadline=2) | RequestOptions(tags=["b"])
    assert whole == RequestOptions(1, frozenset("ab"), 2)
    assert whole | RequestOptions(priority=0, deadline=0) == RequestOptions(0, frozenset("ab"), 0)


WRONG = [
    ({"tags": "tenant"}, TypeError, "one tag per character"),
    ({"priority": "1"}, TypeError, "priority='1'"),
    ({"priority": True}, TypeError, "priority=True"),
    ({"priority": float("nan")}, ValueError, "priority=nan"),
    ({"deadline": float("inf")}, ValueError, "deadline=inf"),
    ({"deadline": "5"}, TypeError, "deadline='5'"),
]


@pytest.mark.parametrize(("options", "error", "words"), WRONG)
def test_wrong_options(options: dict[str, Any], error: type[Exception], words: str) -> None:
    """They are told where they are made, and not when a request comes."""
    with pytest.raises(error, match=words):
        RequestOptions(**options)


WRONG_RULES = [
    ({"bad": "ignore"}, ValueError, "bad='ignore'"),
    ({"known": "abc"}, TypeError, "known='abc'"),
    ({"most": 0}, ValueError, "most=0"),
    ({"longest": "1"}, TypeError, "longest='1'"),
    ({"priorities": {"reports": 1}}, ValueError, "beginning of a path"),
    ({"priorities": {"/reports": "1"}}, TypeError, "priority='1'"),
    ({"deadline": float("nan")}, ValueError, "deadline=nan"),
]


@pytest.mark.parametrize(("options", "error", "words"), WRONG_RULES)
def test_wrong_rules(options: dict[str, Any], error: type[Exception], words: str) -> None:
    """So are they of rules."""
    with pytest.raises(error, match=words):
        Rules(**options)


def test_priorities_by_path() -> None:
    """The longest path that is a beginning counts, in whole segments; what is no path has none."""
    rules = Rules(priorities={"/a": 1, "/a/b/": 2, "/c/d": 3})
    found = {path: rules.read(path, headers()).priority for path in ("/a", "/a/", "/ab", "/a/b", "/a/b/c", "/c", "*")}
    assert found == {"/a": 1, "/a/": 1, "/ab": None, "/a/b": 2, "/a/b/c": 2, "/c": None, "*": None}
    assert Rules(priorities={"/": 7}).read("/", headers()).priority == 7


BAD = ["", " ", "a b", "a,b", "x" * 65, "tenant:a", "?", "ü", "١", "a\n", "a\x00b"]


@pytest.mark.parametrize("value", BAD)
def test_values_that_are_no_tags(value: str) -> None:
    """They are rejected, or share the one tag that no client can claim."""
    with pytest.raises(BadOption, match="x-tenant: expected 1 to 64 letters"):
        Rules(tag_header="X-Tenant").read("/", headers(x_tenant=value + "!"))
    assert Rules(tag_header="X-Tenant", bad="share").read("/", headers(x_tenant=value + "!")).tags == {"tenant:?"}


def test_two_headers_are_none() -> None:
    """A header that came twice says two things: it is a bad one. One that did not come shares a tag."""
    with pytest.raises(BadOption):
        Rules(tag_header="tenant").read("/", {"tenant": ["a", "b"]}.get)
    assert Rules(tag_header="tenant").read("/", headers()).tags == {"tenant:?"}
    assert Rules(tag_header="tenant", prefix="t/").read("/", headers(tenant=" a ")).tags == {"t/a"}


@given(st.text(max_size=80), st.text(max_size=12))
def test_any_header(value: str, seconds: str) -> None:
    """Whatever a client says, there are options, or it is told."""
    rules = Rules(tag_header="tenant", deadline_header="timeout", deadline=3)
    try:
        options = rules.read("/", headers(tenant=value, timeout=seconds))
    except BadOption:
        return
    (tag,) = options.tags
    assert isinstance(tag, str) and tag.isascii() and len(tag) <= len("tenant:") + 64
    assert options.deadline is not None and 0 <= options.deadline <= 3


def test_known_values() -> None:
    """Those that are not known share a tag; a function may say who is."""
    for known in ({"a", "b"}, ["a", "b"], lambda value: value in "ab"):
        rules = Rules(tag_header="tenant", known=known, most=1)
        assert [rules.read("/", headers(tenant=each)).tags for each in "abz"] == [
            {"tenant:a"},
            {"tenant:b"},
            {"tenant:?"},
        ]


def test_the_most_values() -> None:
    """Of those that nobody knows so many count; one that was not seen for a minute makes place."""
    rules = Rules(tag_header="t", most=2)

    def tag(value: str, now: float) -> Any:
        (found,) = rules.read("/", headers(t=value), now).tags
        return found

    assert [tag("a", 0), tag("b", 1), tag("c", 2), tag("a", 50)] == ["t:a", "t:b", "t:?", "t:a"]
    assert tag("c", 1 + serving.FORGET) == "t:c"  # for b
    assert tag("b", 2 + serving.FORGET) == "t:?"


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Options are kept for the next request of the same tag, but not for all that ever came."""
    monkeypatch.setattr(serving, "MADE", 10)
    rules = Rules(tag_header="t", known=lambda value: True, deadline=1)
    first = rules.read("/", headers(t="0"))
    assert rules.read("/", headers(t="0")) is first
    assert {next(iter(rules.read("/", headers(t=str(n))).tags)) for n in range(99)} == {f"t:{n}" for n in range(99)}
    assert len(rules._made) <= 10


def test_deadlines() -> None:
    """A client may ask for less time than there is, and never for more."""
    rules = Rules(deadline=5, deadline_header="X-Timeout", priorities={"/a": 1})
    asked = {text: rules.read("/a", headers(x_timeout=text)).deadline for text in ("2.5", "0", "99", " 3 ")}
    assert asked == {"2.5": 2.5, "0": 0, "99": 5, " 3 ": 3}
    assert rules.read("/a", headers(x_timeout="1")).priority == 1
    for text in ("-1", "inf", "nan", "1e3", "1_0", "٣", "1" * 10):
        with pytest.raises(BadOption, match="x-timeout: expected seconds"):
            rules.read("/", headers(x_timeout=text))


def test_refusals() -> None:
    """Each error of a pool has its word, others have none; the answers have what clients go by."""
    errors = [PoolFull(), Shed(), PoolClosed(), DeadlineExceeded(), TimeoutError(), ValueError()]
    assert [refusal_of(error) for error in errors] == ["full", "shed", "closed", "late", None, None]
    for refusal in set(Refusal) - {Refusal.BAD, Refusal.GONE}:
        answer = refused(refusal, 0)
        assert (answer.status, dict(answer.headers)["retry-after"]) == (503, "1")
    assert refused(Refusal.GONE).status == 499
    bad = refused(Refusal.BAD, 9, "x: ü")
    assert (bad.status, bad.body) == (400, b"Bad Request: x: ?\n") and "retry-after" not in dict(bad.headers)


def test_clearance() -> None:
    """What is queued by the pace of the last second or more; nothing that moves: as long as there is."""
    clearance = Clearance()
    assert clearance.is_due(0.0)
    assert clearance.seconds(0.0, 100, 0) == 1
    assert not clearance.is_due(0.9)
    assert clearance.seconds(1.0, 100, 10) == 10
    assert clearance.seconds(2.0, 100, 10) == serving.LONGEST_RETRY
    assert clearance.seconds(3.0, 0, 10) == 1
    assert clearance.seconds(4.0, 10**9, 11) == serving.LONGEST_RETRY
    assert clearance.seconds(4.0, 5, 11) == serving.LONGEST_RETRY  # the clock stands still


def test_clearance_of_a_pool(once: Run) -> None:
    """A pool's figures are looked at once a second at most."""

    async def main() -> None:
        pool, clearance = Pool(Concurrency(1)), Clearance()
        for _ in range(4):
            pool.start(asyncio.sleep, 0)
        assert clearance.seconds_of(pool, 0.0) == 1
        await pool.drain()
        for _ in range(4):
            pool.start(forever)
        assert clearance.seconds_of(pool, 0.5) == 1
        assert clearance.seconds_of(pool, 2.0) == 2  # three wait, four ended in two seconds
        await pool.aclose()

    once(main)


def test_the_end_of_pools(once: Run, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> None:
    """What is queued never runs, what runs may finish; what does not stop is told, and nobody waits for it."""

    async def main() -> None:
        gate, quick, slow, unused = Gate(), Pool(Concurrency(1)), Pool(), Pool()
        await unused.aclose()
        finishing, waiting = quick.start(asyncio.sleep, 0.001, "finished"), quick.start(asyncio.sleep, 0)
        stuck = slow.start(entrypoint("worker", gate))
        await asyncio.to_thread(gate.wait_arrived)
        ending = asyncio.create_task(serving.shut_down([quick, slow, unused, Pool()], 0.01, 0.01))
        await rounds(2)
        with pytest.raises(PoolClosed):
            slow.start(forever)
        await ending
        assert finishing.result() == "finished" and waiting.cancelled() and not stuck.done()
        gate.open()
        await until(stuck.done)

    with caplog.at_level(logging.ERROR, "threadlets"):
        once(main)
    assert "was not empty" in caplog.text and "was not empty" in capsys.readouterr().err
