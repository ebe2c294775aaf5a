"""Runs uvloop's own tests on our event loop, and tells which fail, as tests/cpython_suite.py does with CPython's.

The tests come with uvloop's source distribution. pip downloads that of the installed version, once; it looks at its
metadata with setuptools and Cython, and compiles nothing. Or --source names a folder that has been unpacked. Tests that
import aiohttp, psutil or pyOpenSSL are skipped where these are not installed: without pyOpenSSL, all tests of TCP.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from importlib import metadata, util
from pathlib import Path
from typing import Any

from cpython_suite import Report, Suite, count_loops, parser, run_child

# The tests of these start programs that make loops of uvloop's. There, Python imports SITECUSTOMIZE by itself.
WITH_PROGRAMS = {"tests.test_dealloc", "tests.test_signals"}
SITECUSTOMIZE = """
import importlib, os
if "UVLOOP_SUITE_LOOP" in os.environ:
    module, name = os.environ["UVLOOP_SUITE_LOOP"].split(":")
    import uvloop
    uvloop.Loop = getattr(importlib.import_module(module), name)
"""


def replace(loop: Any, module: str, report: Report) -> None:
    """Put a class in the place of ``uvloop.Loop``, where all of uvloop looks it up; leave out tests of asyncio."""
    import uvloop
    from uvloop import _testbase

    count_loops(uvloop.Loop, loop, report)
    uvloop.Loop = loop  # type: ignore[misc]
    _testbase.AIOTestCase = type("AIOTestCase", (), {})  # type: ignore[assignment, misc]
    if module in WITH_PROGRAMS:
        os.environ["UVLOOP_SUITE_LOOP"] = f"{loop.__module__}:{loop.__qualname__}"


def download(version: str, folder: Path) -> str:
    """Put uvloop's source distribution into a folder; return what went wrong, or nothing."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--no-binary", "uvloop", "--dest", str(folder), f"uvloop=={version}"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    return "" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["pip failed"])[-1]


def main() -> int:
    """Run what the command line asks for; return the exit status."""
    if sys.argv[1:2] == ["--child"]:
        return run_child(replace)
    options = parser("Run uvloop's tests on our event loop.", "threadlets.adapters.uvloop:EventLoop")
    options.add_argument("--source", type=Path, metavar="FOLDER", help="uvloop's source, unpacked; else pip gets it")
    options.add_argument("--cache", type=Path, metavar="FOLDER", help="keep what pip gets here, for the next time")
    chosen = options.parse_args()
    try:
        version = metadata.version("uvloop")
    except metadata.PackageNotFoundError:
        print("skipped: uvloop is not installed.")
        return 0
    if missing := [name for name in ("aiohttp", "OpenSSL", "psutil") if util.find_spec(name) is None]:
        print(f"Some tests will be skipped, for want of {', '.join(missing)}.")
    with tempfile.TemporaryDirectory(prefix="uvloop-suite-") as name:
        folder = Path(name)
        source = chosen.source
        if source is None:
            cache = chosen.cache or folder
            archive = cache / f"uvloop-{version}.tar.gz"
            wrong = "" if archive.exists() else download(version, cache)
            if wrong or not archive.exists():
                print(f"skipped: pip did not get the source distribution of uvloop {version}: {wrong}")
                return 0
            with tarfile.open(archive) as tar:
                tar.extractall(folder / "unpacked", filter="data")
            source = folder / "unpacked" / f"uvloop-{version}"
        if not (source / "tests").is_dir():
            print(f"skipped: {source} has no folder tests.")
            return 0
        # Without the rest: a folder uvloop that is not built would hide the one that is installed.
        shutil.copytree(source / "tests", folder / "suite" / "tests")
        (folder / "suite" / "sitecustomize.py").write_text(SITECUSTOMIZE)
        (folder / "suite" / "tests" / "test_sourcecode.py").unlink(missing_ok=True)  # is about its style
        return Suite(f"uvloop {version}'s tests", "tests", chosen, folder / "suite").run(
            folder / "suite" / "tests", "uvloop:Loop"
        )


if __name__ == "__main__":
    sys.exit(main())
