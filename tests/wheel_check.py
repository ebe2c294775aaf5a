"""Builds the archives, installs each into an empty environment, and looks at what a user would get (`make wheel`).

Why: a checkout and an installation differ in one place. Here ``threadlets/adapters`` is a symlink; a wheel must hold
the folder itself, and nothing of ours may appear as a top-level ``adapters``, the name of another distribution. Three
ways lead to an installation, and each is tried: the wheel of the checkout, the wheel made from the source archive, and
the source archive handed to pip. All three must put the same files in place.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# Runs in the new environment, from an empty folder. Adapters are looked up, not imported: they need their libraries.
LOOK = """
import importlib.util, pathlib, sys
import threadlets, threadlets.adapters
folder = pathlib.Path(threadlets.__file__).parent
assert folder.is_relative_to(sys.prefix), f"threadlets came from {folder}, not from the new environment"
assert (folder / "py.typed").is_file(), "py.typed is missing: type checkers would ignore the annotations"
assert not (folder / "adapters").is_symlink(), "threadlets/adapters is a link, not a folder"
for name in ("adapters", "tests", "examples", "benchmarks"):
    assert importlib.util.find_spec(name) is None, f"a top-level {name!r} was installed"
for file in (folder / "adapters").glob("*.py"):
    assert importlib.util.find_spec(f"threadlets.adapters.{file.stem}"), f"adapters/{file.name} cannot be found"
print(threadlets.__version__, *sorted(str(file.relative_to(folder)) for file in folder.rglob("*")
      if file.is_file() and "__pycache__" not in file.parts), sep="\\n")
"""

TYPED = """
import threadlets
reveal_type(threadlets.__version__)
"""


class Wrong(Exception):
    """What the check found is not what a user should get."""


def run(*command: object, cwd: Path | None = None) -> str:
    """Run a command without the surroundings that could lend it a module; return what it printed."""
    surroundings = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run([str(word) for word in command], cwd=cwd, env=surroundings, capture_output=True, text=True)
    if done.returncode:
        raise Wrong(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout


def expected_files() -> set[str]:
    """List what the folders of the checkout hold, as paths below ``threadlets/`` of an installation."""
    found = set()
    for source, prefix in ((ROOT / "threadlets", ""), (ROOT / "adapters", "adapters/")):
        for file in source.rglob("*"):
            below = file.relative_to(source)
            if file.is_file() and "__pycache__" not in file.parts and (prefix or below.parts[0] != "adapters"):
                found.add(f"{prefix}{below.as_posix()}")
    return found


def check_wheel(wheel: Path, expected: set[str]) -> None:
    """Look into a wheel: our folder, its metadata, and nothing else."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = archive.read(next(name for name in names if name.endswith(".dist-info/METADATA"))).decode()
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise Wrong(f"{wheel.name} holds files twice: {doubled}")
    others = sorted({name.split("/")[0] for name in names} - {"threadlets"})
    if len(others) != 1 or not others[0].endswith(".dist-info"):
        raise Wrong(f"{wheel.name} would install more than threadlets: {others}")
    held = {name.removeprefix("threadlets/") for name in names if name.startswith("threadlets/")}
    if held != expected:
        raise Wrong(f"{wheel.name} lacks {sorted(expected - held)}, and should not have {sorted(held - expected)}")
    if not any(name.endswith(".dist-info/licenses/LICENSE") for name in names):
        raise Wrong(f"{wheel.name} has no LICENSE")
    needed = [line for line in metadata.splitlines() if line.startswith("Requires-Dist:") and "extra ==" not in line]
    if needed:
        raise Wrong(f"{wheel.name} requires other distributions: {needed}")


def check_sdist(sdist: Path, expected: set[str]) -> None:
    """Look into the source archive: both folders, each once and without the link, and what belongs beside them."""
    with tarfile.open(sdist) as archive:
        members = {member.name.partition("/")[2]: member for member in archive.getmembers()}
    wanted = {"LICENSE", "README.md", "CHANGELOG.md", "pyproject.toml", "tests/wheel_check.py"}
    wanted |= {name if name.startswith("adapters/") else f"threadlets/{name}" for name in expected}
    if missing := sorted(wanted - members.keys()):
        raise Wrong(f"{sdist.name} lacks {missing}")
    if links := sorted(name for name, member in members.items() if member.issym() or member.islnk()):
        raise Wrong(f"{sdist.name} holds links, which not every system can unpack: {links}")
    if doubled := sorted(name for name in members if name.startswith("threadlets/adapters")):
        raise Wrong(f"{sdist.name} holds the adapters twice: {doubled}")


def check_installation(what: str, archive: Path, folder: Path, expected: set[str]) -> None:
    """Install an archive into an empty environment, import it there from an empty folder, and compare the files."""
    environment, elsewhere = folder / f"venv-{what}", folder / f"elsewhere-{what}"
    elsewhere.mkdir()
    run(sys.executable, "-m", "venv", "--without-pip", environment)
    python = environment / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "-qq", archive, cwd=elsewhere)
    version, *files = run(python, "-c", LOOK, cwd=elsewhere).splitlines()
    held = set(files)
    if held != expected:
        raise Wrong(f"{what} lacks {sorted(expected - held)}, and should not have {sorted(held - expected)}")
    print(f"ok: {what}: installs threadlets {version}, {len(held)} files, imports from an empty folder")
    if what == "wheel":
        (elsewhere / "typed.py").write_text(TYPED)
        seen = run(
            *(sys.executable, "-m", "mypy", "--strict", "--no-incremental", "--follow-imports=silent"),
            *("--python-executable", python, "typed.py"),
            cwd=elsewhere,
        )
        if '"builtins.str"' not in seen and '"str"' not in seen:
            raise Wrong(f"mypy does not see the types of the installed package:\n{seen}")
        print(f"ok: {what}: mypy sees its types")


def main() -> None:
    """Build, look, install, look again; say each thing that was found right."""
    expected = expected_files()
    with tempfile.TemporaryDirectory(prefix="threadlets-wheel-") as name:
        folder = Path(name)
        build = (sys.executable, "-m", "build", "--outdir")
        run(*build, folder / "checkout", "--wheel", ROOT)
        run(*build, folder / "sdist", ROOT)  # the source archive, and the wheel made from it
        (wheel,) = (folder / "checkout").glob("*.whl")
        (sdist,) = (folder / "sdist").glob("*.tar.gz")
        (wheel_of_sdist,) = (folder / "sdist").glob("*.whl")
        check_wheel(wheel, expected)
        print(f"ok: {wheel.name}, from the checkout: threadlets and its metadata, nothing else")
        check_sdist(sdist, expected)
        print(f"ok: {sdist.name}: both folders, the tests, README, LICENSE and CHANGELOG")
        check_wheel(wheel_of_sdist, expected)
        print(f"ok: {wheel_of_sdist.name}, from the source archive: the same files")
        check_installation("wheel", wheel, folder, expected)
        check_installation("wheel-of-sdist", wheel_of_sdist, folder, expected)
        check_installation("sdist", sdist, folder, expected)


if __name__ == "__main__":
    try:
        main()
    except Wrong as wrong:
        sys.exit(f"wrong: {wrong}")
