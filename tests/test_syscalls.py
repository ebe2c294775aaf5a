"""What the system says about a thread, and what is said where the system is silent."""

from __future__ import annotations

import errno
import importlib.util
import os
import stat
import sys
import threading
from contextlib import suppress
from pathlib import Path
from types import ModuleType

import pytest

from threadlets import syscalls

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux counts the switches of one thread")


def load_again() -> ModuleType:
    """Load the module anew, as on another platform."""
    spec = importlib.util.find_spec("threadlets.syscalls")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@on_linux
def test_waiting_is_counted() -> None:
    """A thread that waited for another one has given up its CPU; the counts are those of the calling thread alone."""
    reader, writer = os.pipe()
    try:
        seen = []

        def wait() -> None:
            before = syscalls.switches()
            ready.set()
            os.read(reader, 1)
            seen.extend([before, syscalls.switches()])

        ready = threading.Event()
        thread = threading.Thread(target=wait)
        thread.start()
        ready.wait()
        while Path(f"/proc/self/task/{thread.native_id}/stat").read_text().rpartition(")")[2].split()[0] != "S":
            pass  # until it sleeps in its read
        os.write(writer, b"x")
        thread.join()
        (waited_before, preempted_before), (waited_after, preempted_after) = seen
        assert waited_after > waited_before
        assert preempted_after >= preempted_before
    finally:
        os.close(reader)
        os.close(writer)


@on_linux
def test_counts_are_those_of_the_kernel() -> None:
    """The two numbers are the voluntary and the involuntary context switches, in this order."""
    for _ in range(100):
        before = syscalls.switches()
        status = Path(f"/proc/self/task/{threading.get_native_id()}/status").read_text()
        lines = dict(line.split(":", 1) for line in status.splitlines())
        kernel = int(lines["voluntary_ctxt_switches"]), int(lines["nonvoluntary_ctxt_switches"])
        if before == syscalls.switches():  # or it was switched while it looked
            assert kernel == before
            return
    pytest.fail("this machine switches all the time")


@pytest.mark.parametrize("missing", ["the module", "the constant"])
def test_silent_systems(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system counts nothing, nothing is said, and importing does not fail."""
    fake = ModuleType("resource")
    fake.getrusage = lambda who: pytest.fail("nobody asks")  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "resource", fake if missing == "the constant" else None)
    assert load_again().switches() is None


# ---------------------------------------------------------------------------------------------------------- openat2

has_openat2 = pytest.mark.skipif(not syscalls.has_openat2(), reason="this system has no openat2, or forbids it")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has openat2")
def test_openat2_is_found_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked for when it is first needed; on another system there is none, and each call would have to wait."""
    monkeypatch.setattr(syscalls, "_openat2", None)
    assert syscalls.has_openat2() == (syscalls._openat2 is not syscalls._no_openat2)
    monkeypatch.setattr(syscalls.sys, "platform", "darwin")
    monkeypatch.setattr(syscalls, "_openat2", None)
    assert not syscalls.has_openat2()
    assert syscalls.openat2(syscalls.CURRENT, b"/", syscalls.LOOK) == -errno.EAGAIN


@has_openat2
def test_the_ways_of_openat2(tmp_path: Path) -> None:
    """What each way makes of a file, of links that stay inside and lead out, and of what is not there."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_text("text")
    (tmp_path / "folder" / "inside").symlink_to("file")
    (tmp_path / "folder" / "outside").symlink_to(tmp_path)
    around = os.open(tmp_path / "folder", os.O_PATH)
    found: dict[str, list[str]] = {}
    try:
        for name in ("file", "inside", "outside", "none"):
            for way in range(syscalls.READ_STRAIGHT + 1):
                with suppress(OSError):
                    os.stat(name, dir_fd=around)  # so that it is in the cache of names
                descriptor = syscalls.openat2(around, name.encode(), way)
                if descriptor >= 0:
                    mode = os.fstat(descriptor).st_mode
                    found.setdefault(name, []).append(stat.filemode(mode)[0])
                    assert os.get_inheritable(descriptor) is False
                    os.close(descriptor)
                else:
                    found.setdefault(name, []).append(errno.errorcode[-descriptor])
    finally:
        os.close(around)
    assert found == {
        "file": ["-"] * 6,
        "inside": ["-", "l", "-", "ELOOP", "-", "ELOOP"],
        "outside": ["d", "l", "EXDEV", "ELOOP", "d", "ELOOP"],
        "none": ["ENOENT"] * 6,
    }
