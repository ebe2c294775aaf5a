"""A plugin for pytest: suites on loops that change hands, leaks, stalls, the order of things, and time that leaps.

pytest loads it by its entry point in every run of whoever has threadlets installed, and it changes nothing there: it
imports nothing of threadlets, and hooks that would have a price are registered only when an option asks for them.

    --threadlets-loop=asyncio|uvloop    run async tests on a loop that changes hands
    --threadlets-strict                 fail every test that leaks, not only those that use what is below
    --threadlets-seed=N|random          start equals in another order, the same one for the same number

    @pytest.mark.threadlets             have a test looked after; ``max_stall=0.05``: and fail if the loop stalls longer
    threadlet_pool                      an open pool for one test
    virtual_clock                       time passes when everybody waits, and takes none

How a test is looked after: whoever runs it - pytest-asyncio, anyio, or this plugin - is handed the same coroutine
function with another one around it (``pytest_trials``), which runs in the test's own task. So it works for all three,
on whatever loop they have made, and nothing has to be known of them. Only to choose the loop takes a hook of each: that
of pytest-asyncio for loop factories, and the value of anyio's fixture ``anyio_backend``.

Rejected: an autouse fixture (it would be set up for every test of everybody, and runs outside of the test's task); an
event loop policy (deprecated, and shared by all tests); a fixture that makes loops (each runner has its own).

Assumes, for ``--threadlets-loop``: pytest-asyncio 1.4 or newer, if there is one, for its hook. Tested with pytest 9.2,
pytest-asyncio 1.5, anyio 4.16, pytest-xdist 3.8. PYTEST_DONT_REWRITE: there is no assertion in here.
"""

from __future__ import annotations

import inspect
from argparse import ArgumentTypeError
from collections.abc import Callable, Generator, Mapping
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

if TYPE_CHECKING:
    import asyncio

    from threadlets import Pool

    from .pytest_clock import VirtualClock
    from .pytest_seeds import Seeds

__all__ = ["Settings"]

FIXTURES = {"threadlet_pool", "virtual_clock"}  # whoever uses one has the test looked after
MARKER = "threadlets(max_stall=None, finish=5.0): fail the test if it leaks threadlets, worker threads or locks"
MARKER += "; max_stall: or if its event loop stands still for more seconds; finish: seconds that what is left in"
MARKER += " threadlet_pool may take. Async tests that no other plugin runs are run."


class Settings(NamedTuple):
    """What the options ask for."""

    loop: str | None
    strict: bool
    seeds: Seeds | None


SETTINGS = pytest.StashKey[Settings]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("threadlets")
    group.addoption(
        "--threadlets-loop",
        choices=("asyncio", "uvloop"),
        help="run async tests on an event loop that another thread goes on with while a call blocks",
    )
    group.addoption(
        "--threadlets-strict",
        action="store_true",
        help="fail every test that leaves threadlets, busy worker threads or held locks behind",
    )
    group.addoption(
        "--threadlets-seed",
        type=_seed,
        metavar="N|random",
        help="start threadlets of equal priority, and tasks that are ready, in an order that this number decides",
    )


def _seed(text: str) -> int | str:
    if text == "random":
        return text
    try:
        return int(text)
    except ValueError:
        raise ArgumentTypeError(f"expected a whole number, or 'random', and not {text!r}") from None


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Set up what the options ask for."""
    config.addinivalue_line("markers", MARKER)
    loop, seeds = config.getoption("threadlets_loop"), None
    if loop is not None:
        check_loop(config, loop)
        config.pluginmanager.register(Loops(loop), "threadlets-loops")
    if config.getoption("threadlets_seed") is not None:
        from .pytest_seeds import Seeds, seed_of

        seeds = Seeds(seed_of(config))
        config.pluginmanager.register(seeds, "threadlets-seeds")
    config.stash[SETTINGS] = Settings(loop, config.getoption("threadlets_strict"), seeds)


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Say what is on; nothing, if nothing is."""
    loop, strict, seeds = config.stash[SETTINGS]
    words = []
    if loop is not None:
        words.append(f"loop={loop}, changing hands")
    if strict:
        words.append("strict")
    if seeds is not None:
        words.append(f"seed={seeds.seed}, again with --threadlets-seed={seeds.seed}")
    return [f"threadlets: {'; '.join(words)}"] if words else []


# ----------------------------------------------------------------------------------------------------- which loop


def check_loop(config: pytest.Config, loop: str) -> None:
    """Raise ``UsageError`` if tests cannot be run on such a loop here."""
    if loop == "uvloop" and find_spec("uvloop") is None:
        raise pytest.UsageError("--threadlets-loop=uvloop needs uvloop: pip install 'threadlets[uvloop]'")
    hook = getattr(config.hook, "pytest_asyncio_loop_factories", None)
    if config.pluginmanager.has_plugin("asyncio") and (hook is None or not hook.has_spec()):
        raise pytest.UsageError(
            "--threadlets-loop needs pytest-asyncio 1.4 or newer, which has a hook for loop factories, or none: "
            "pip install 'pytest-asyncio>=1.4', or add -p no:asyncio"
        )


def factory_of(loop: str | None, leaps: bool = False) -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return what makes a loop of this kind; None: whatever Python makes.

    Args:
        loop: That of ``--threadlets-loop``.
        leaps: It is for a virtual clock, which uvloop cannot go by.
    """
    if loop is None:
        return None
    if loop == "uvloop" and not leaps:
        from .uvloop import new_event_loop

        return partial(new_event_loop, main_at_home=False)  # a test may offload() and migrate()
    from threadlets import EventLoop

    return EventLoop


class Loops:
    """The hooks of ``--threadlets-loop``: what pytest-asyncio and anyio are to make their loops with."""

    def __init__(self, loop: str) -> None:
        self.loop = loop

    @pytest.hookimpl(optionalhook=True, wrapper=True, tryfirst=True)
    def pytest_asyncio_loop_factories(self, item: pytest.Item) -> Generator[None, Any, Mapping[str, Any]]:
        """Give pytest-asyncio our factory, under each name that somebody else has given: tests may select by it."""
        theirs = yield
        factory = factory_of(self.loop, "virtual_clock" in getattr(item, "fixturenames", ()))
        return dict.fromkeys(theirs or ["threadlets"], factory)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[Any]) -> Generator[None, Any, Any]:
        """Give anyio our factory, where its backend is asyncio."""
        value = yield
        if fixturedef.argname != "anyio_backend" or fixturedef.cached_result is None:
            return value
        name, options = value if isinstance(value, tuple) else (value, {})
        if name == "asyncio":
            options = {key: each for key, each in options.items() if key != "use_uvloop"}
            value = name, {**options, "loop_factory": factory_of(self.loop)}
            fixturedef.cached_result = (value, *fixturedef.cached_result[1:])
        return value


# --------------------------------------------------------------------------------------------------------- fixtures


@pytest.fixture
def threadlet_pool(request: pytest.FixtureRequest) -> Pool:
    """Return a pool that is open during the test, as in ``async with``: failures that nobody has retrieved are raised.

    When the test has returned, what is in it has 5 seconds (``@pytest.mark.threadlets(finish=...)``) to end.
    """
    _check_named(request)
    from threadlets import Pool

    return Pool(name=f"threadlet_pool of {request.node.name}")


@pytest.fixture
def virtual_clock(request: pytest.FixtureRequest) -> VirtualClock:
    """Have the time pass when everybody waits: ``await asyncio.sleep(3600)`` returns at once, in order.

    It is the time of the test's event loop, and that of rates, deadlines and aging in pools. See ``VirtualClock``.
    """
    _check_named(request)
    from .pytest_clock import VirtualClock

    return VirtualClock()


def _check_named(request: pytest.FixtureRequest) -> None:
    """Refuse a fixture of ours that comes too late: the test is looked after from its first step on, or not at all."""
    name = request.fixturename
    if name not in getattr(request.node, "fixturenames", (name,)):
        pytest.fail(f"{name} was asked for by getfixturevalue: name it as an argument of the test, or of its fixtures")


# ------------------------------------------------------------------------------------------------------------ tests


def _is_ours(item: pytest.Item) -> bool:
    """Say whether a test has our mark, or was given something by our fixtures, and not by others of these names."""
    given: dict[str, Any] = getattr(item, "funcargs", {})
    kinds = [type(given[name]).__module__ for name in FIXTURES & given.keys()]
    return any(kind.startswith("threadlets.") for kind in kinds) or item.get_closest_marker("threadlets") is not None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """Look after a test, if that is wanted."""
    settings = item.config.stash[SETTINGS]
    ours = _is_ours(item)
    if not isinstance(item, pytest.Function) or not (ours or settings.strict or settings.seeds):
        return (yield)
    from .pytest_trials import Trial

    trial = Trial(item, settings, checks=ours or settings.strict)
    with trial.around():
        return (yield)


def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run an async test that is ours, and that nobody else runs: the others come first, or have wrapped it."""
    examples = getattr(pyfuncitem.obj, "hypothesis", None)
    function = pyfuncitem.obj if examples is None else examples.inner_test
    if not inspect.iscoroutinefunction(function) or not _is_ours(pyfuncitem):
        return None

    def run(**arguments: Any) -> None:
        __tracebackhide__ = True
        import asyncio

        factory = factory_of(pyfuncitem.config.stash[SETTINGS].loop, "virtual_clock" in pyfuncitem.fixturenames)
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(function(**arguments))

    if examples is not None:
        examples.inner_test = run  # until the trial around it has ended
        return None
    run(**{name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames})
    return True
