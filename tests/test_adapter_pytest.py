"""The pytest plugin, by suites of others that run in this process: what is on, and on which loops tests run."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path
from types import SimpleNamespace

import pytest

import threadlets.adapters.pytest as adapter

from .plugins import BESIDE, PLUGIN, suite

pytest_plugins = ["pytester"]


def test_importing_it_imports_nothing_else() -> None:
    """It is loaded in every run of pytest: at import it takes pytest, and small parts of Python."""
    tree = ast.parse(Path(adapter.__file__).read_text())
    names = {each.name for node in tree.body if isinstance(node, ast.Import) for each in node.names}
    names |= {str(node.module) for node in tree.body if isinstance(node, ast.ImportFrom)}
    assert names == {
        *{"__future__", "argparse", "collections.abc", "functools", "importlib.util", "inspect", "typing"},
        "pytest",
    }


def test_it_changes_nothing_unless_it_is_asked_to(pytester: pytest.Pytester) -> None:
    """Without options, tests that use nothing of it are as ever: no header, no loop, no look at what they leave."""
    result = suite(
        pytester,
        """
        import asyncio, pytest, threadlets
        lock = threadlets.Lock()
        @pytest.fixture
        def virtual_clock():
            return "another one of that name"
        def test_plain(virtual_clock):
            lock.acquire()
        async def test_async():
            pass
        def test_own_loop():
            async def main():
                assert type(asyncio.get_running_loop()).__module__.startswith("asyncio.")
                return threadlets.Pool()
            asyncio.run(main())
    """,
    )
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(["*async def functions are not natively supported*"])
    result.stdout.no_fnmatch_line("*threadlets:*")


KINDS = """
    import asyncio, sys, pytest

    async def look(config):
        expected = {"asyncio": "threadlets.loops", "uvloop": "threadlets.adapters.uvloop"}
        kind = type(asyncio.get_running_loop()).__module__
        assert kind == expected.get(config.getoption("threadlets_loop"), "asyncio.unix_events")
        from threadlets import offload
        async with offload():
            pass

    @pytest.mark.threadlets
    async def test_ours(pytestconfig):
        await look(pytestconfig)

    @pytest.mark.anyio
    @pytest.mark.parametrize("anyio_backend", ["asyncio", ("asyncio", {"debug": True, "use_uvloop": False})])
    async def test_anyio(pytestconfig, anyio_backend):
        await look(pytestconfig)

    if "pytest_asyncio" in sys.modules:
        @pytest.mark.asyncio
        async def test_asyncio(pytestconfig):
            await look(pytestconfig)
"""


@pytest.mark.parametrize("loop", [None, "asyncio", "uvloop"])
def test_loops_for_whoever_runs_a_test(pytester: pytest.Pytester, loop: str | None) -> None:
    """With the option, tests run on a loop that changes hands, whoever runs them; without, on theirs."""
    pytest.importorskip("anyio")
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    with_asyncio = importlib.util.find_spec("pytest_asyncio") is not None
    options = [] if loop is None else [f"--threadlets-loop={loop}"]
    beside = BESIDE if with_asyncio else BESIDE[:-2]
    result = suite(pytester, KINDS, *options, beside=beside)
    result.assert_outcomes(passed=3 + with_asyncio)
    if loop is not None:
        result.stdout.fnmatch_lines([f"threadlets: loop={loop}, changing hands"])


def test_names_of_loop_factories_stay(pytester: pytest.Pytester) -> None:
    """Whoever has named factories for pytest-asyncio has tests by these names as before, on our loop."""
    pytest.importorskip("pytest_asyncio")
    pytester.makeconftest("""
        import asyncio
        def pytest_asyncio_loop_factories():
            return {"one": asyncio.new_event_loop, "two": asyncio.new_event_loop}
    """)
    pytester.makepyfile("""
        import asyncio, pytest, threadlets
        @pytest.mark.asyncio
        async def test_both():
            assert isinstance(asyncio.get_running_loop(), threadlets.EventLoop)
        @pytest.mark.asyncio(loop_factories=["two"])
        async def test_one():
            assert isinstance(asyncio.get_running_loop(), threadlets.EventLoop)
    """)
    result = pytester.runpytest_inprocess(*PLUGIN, *BESIDE, "--threadlets-loop=asyncio", "-v")
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines(["*test_both[[]one] PASSED*", "*test_both[[]two] PASSED*"])


def test_what_cannot_be_is_told_before_any_test(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong seed, and a loop that is not there, are errors of usage; the second names the extra."""
    result = suite(pytester, "def test(): pass", "--threadlets-seed=seven")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--threadlets-seed: expected a whole number, or 'random', and not 'seven'"])
    monkeypatch.setattr(adapter, "find_spec", lambda name: None)
    result = suite(pytester, "def test(): pass", "--threadlets-loop=uvloop")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--threadlets-loop=uvloop needs uvloop: pip install 'threadlets[[]uvloop]'"])


def test_a_pytest_asyncio_without_the_hook_is_an_error() -> None:
    """An older one would make its own loops, and nobody would notice: so it is told."""
    manager = SimpleNamespace(has_plugin=lambda name: True)
    config: object = SimpleNamespace(pluginmanager=manager, hook=SimpleNamespace())
    with pytest.raises(pytest.UsageError, match=r"needs pytest-asyncio 1\.4 or newer"):
        adapter.check_loop(config, "asyncio")  # type: ignore[arg-type]


def test_fixtures_that_come_too_late_are_refused(pytester: pytest.Pytester) -> None:
    """What is asked for while the test is set up by its name alone could not look after it."""
    result = suite(
        pytester,
        """
        import pytest
        @pytest.fixture(params=["virtual_clock", "threadlet_pool"])
        def late(request):
            return request.getfixturevalue(request.param)
        def test_late(late):
            pass
    """,
    )
    result.assert_outcomes(errors=2)
    result.stdout.fnmatch_lines(["*virtual_clock was asked for by getfixturevalue: name it as an argument*"])
