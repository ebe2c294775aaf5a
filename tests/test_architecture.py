"""Guards of the house, read from the syntax trees: which room may use which, and what belongs nowhere.

Why: these are the rules that nobody notices breaking. An import in the wrong direction works, until it is a cycle; a
private name of asyncio works, until the next Python. Each check is a function from a root folder to sentences that say
what is wrong and what to do, so that the tests can show it planted breaches as well as this checkout.

Assumes: private names are found where they are reached through the name of a module or class of asyncio or uvloop, or
through a variable called ``loop``. What hides behind another variable is not seen.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent

# The house, ground floor first. A module may import those of earlier lines.
LINES = {
    "words": "errors contracts outcomes snapshots events",
    "rules": "lifecycles queues lanes throttles shares limits histograms placements thresholds chains courses"
    " sysfs drawings nodes",
    "machinery": "syscalls trials probes mailboxes workers alarms drivers asides claims spares tallies takeover loops"
    " tasks",
    "doors": "residences topology groups definitions surroundings waits lendings regions whereabouts cancellation"
    " errands parking deadlocks holders locks grants semaphores conditions descriptors cleanups expiries futures"
    " handles departures deliveries coroutines homes visits trips migrations programs progress selections scopes"
    " ledgers turns overflows admissions sharings maps starts hosts submissions executors pools entrypoints"
    " roads runs chainings ways batches streams openings readings writings temporaries files folders"
    " telemetry monitor cli",
    "face": "face __init__",
    "street": "__main__ adapters",
}
HOUSE = {module: line for line, modules in LINES.items() for module in modules.split()}
RANK = {line: rank for rank, line in enumerate(LINES)}
DOORS = LINES["doors"].split()

# Who may import whom within a line; doors may import every earlier door.
ALONG = {(module, "errors") for module in ("contracts", "outcomes", "events")}
ALONG |= {
    ("loops", "takeover"),
    ("takeover", "claims"),
    ("takeover", "spares"),
    ("__main__", "adapters"),
}
ALONG |= {("takeover", earlier) for earlier in ("asides", "claims", "drivers", "spares", "tallies")}
ALONG |= {("tallies", "claims"), ("spares", "alarms"), ("probes", "syscalls"), ("workers", "syscalls")}
ALONG |= {("__init__", "face")}
ALONG |= {("lanes", "queues"), ("shares", "throttles"), ("limits", "throttles"), ("courses", "chains")}
ALONG |= {("drawings", "sysfs"), ("nodes", "sysfs"), ("nodes", "drawings")}
ALONG |= {(door, earlier) for place, door in enumerate(DOORS) for earlier in DOORS[:place]}

# Imports against the order, for a reason: a command may need an adapter (the screen of `top`), and the version.
LATE = {("cli", "adapters"), ("cli", "__init__")}

# Rules decide; they neither wait, nor look at the clock, nor ask the system.
NOT_IN_RULES = {"asyncio", "threading", "time", "os", "socket", "select", "selectors", "signal", "subprocess"}

# The private names of asyncio and uvloop that we lean on, and who may.
PRIVATE = {
    "threadlets/takeover.py": {"_enter_task", "_leave_task"},
    "threadlets/loops.py": {
        *{"_asyncgen_finalizer_hook", "_asyncgen_firstiter_hook", "_clock_resolution", "_current_handle", "_debug"},
        *{"_process_events", "_ready", "_scheduled", "_selector", "_set_running_loop", "_stopping", "_thread_id"},
        *{"_timer_cancelled_count", "_write_to_self"},
    },
    "threadlets/tasks.py": {
        *{"_enter_task", "_get_running_loop", "_leave_task", "_set_running_loop"},
        *{"_register_task", "_unregister_task"},
    },
    "adapters/pytest_clock.py": {"_selector"},  # so that time passes where the loop would wait
    "adapters/pytest_seeds.py": {"_ready"},  # so that its order can be another one
    "adapters/uvloop.py": {"_asyncgen_finalizer_hook", "_asyncgen_firstiter_hook", "_set_running_loop"},
}

PROJECT = ("threadlets", "adapters", "tests", "examples", "benchmarks")
LONG = 400
Check = Callable[[Path], Iterator[str]]


def sources(root: Path, *folders: str) -> Iterator[tuple[str, ast.Module]]:
    """Parse every Python file below the folders; threadlets/adapters is a link, its files are those of adapters."""
    for folder in folders:
        for file in sorted((root / folder).rglob("*.py")):
            path = file.relative_to(root).as_posix()
            if not path.startswith("threadlets/adapters/"):
                yield path, ast.parse(file.read_text(encoding="utf-8"), path)


def walk(node: ast.AST, typing_only: bool = False) -> Iterator[tuple[ast.AST, bool]]:
    """Walk a tree; say of each node whether it is there for type checkers alone."""
    yield node, typing_only
    guarded = isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")
    for name, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from walk(child, typing_only or (guarded and name == "body"))


class Import(NamedTuple):
    """One name that an import statement brings in."""

    line: int
    module: str  # its full name
    name: str  # what is taken from it, or ""
    local: str  # what it is called here
    typing_only: bool

    @property
    def package(self) -> str:
        """The outermost package."""
        return self.module.partition(".")[0]

    @property
    def room(self) -> str:
        """The module of threadlets that is reached: "__init__" for the package itself, "" for one outside."""
        if self.module == "threadlets":
            return self.name if self.name in HOUSE else "__init__"
        return self.module.split(".")[1] if self.package == "threadlets" else ""


def imports(path: str, tree: ast.Module) -> Iterator[Import]:
    """Read all import statements of a file, also those in functions."""
    package = ["threadlets", "adapters"] if path.startswith("adapters/") else path.split("/")[:-1]
    for node, typing_only in walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(node.lineno, alias.name, "", alias.asname or alias.name, typing_only)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *filter(None, [node.module])])
            for alias in node.names:
                yield Import(node.lineno, module, alias.name, alias.asname or alias.name, typing_only)


def private(name: str) -> bool:
    """Say whether a name is private by its underscore."""
    return name.startswith("_") and not (name.startswith("__") and name.endswith("__"))


def unknown_rooms(root: Path) -> Iterator[str]:
    """Every module has its place in the house."""
    for path, _ in sources(root, "threadlets"):
        if path.count("/") > 1:
            yield f"{path}: the house has one floor, and adapters beside it"
        elif Path(path).stem not in HOUSE:
            yield f"{path} is not in the house: add it to a line of LINES in tests/test_architecture.py"


def wrong_directions(root: Path) -> Iterator[str]:
    """Imports go to earlier lines, or along the list; those for type checkers may also go anywhere within the line."""
    for path, tree in sources(root, "threadlets"):
        here = Path(path).stem
        for each in imports(path, tree):
            there = each.room
            if not there or here not in HOUSE or (here, there) in ALONG | LATE:
                continue
            if there not in HOUSE:
                yield f"{path}:{each.line} imports {each.module}, which is not in the house"
                continue
            down = RANK[HOUSE[here]] - RANK[HOUSE[there]]
            if down < 0 or (down == 0 and not each.typing_only):
                yield (
                    f"{path}:{each.line} ({HOUSE[here]}) imports {there} ({HOUSE[there]}):"
                    " imports go to earlier lines of LINES, or along ALONG"
                )


def impure_rules(root: Path) -> Iterator[str]:
    """Rules import nothing that waits, tells the time or asks the system."""
    for path, tree in sources(root, "threadlets"):
        for each in imports(path, tree):
            if HOUSE.get(Path(path).stem) == "rules" and each.package in NOT_IN_RULES and not each.typing_only:
                yield f"{path}:{each.line} imports {each.module}: rules take times and facts as arguments"


def false_face(root: Path) -> Iterator[str]:
    """``__all__`` is sorted and complete, and no module has the name of an exported object."""
    for path, tree in sources(root, "threadlets"):
        if path != "threadlets/face.py":
            continue
        listed: list[str] = []
        names = {each.local: each.module for each in imports(path, tree) if each.name and each.room}
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                names[node.name] = "here"
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                listed = ast.literal_eval(node.value)
        names = {name: module for name, module in names.items() if not name.startswith("_")}
        if listed != sorted(set(listed)):
            yield f"{path}: __all__ is not sorted, or says something twice; right is {sorted(set(listed))}"
        for name in sorted(names.keys() ^ set(listed)):
            yield f"{path}: {name} is {'imported, but not in' if name in names else 'not imported, but in'} __all__"
        for name, module in sorted(names.items()):
            if module != "threadlets" and (root / "threadlets" / f"{name}.py").exists():
                yield f"{path}: {name} is an exported object and a module: give the module a plural"


def nosy_adapters(root: Path) -> Iterator[str]:
    """Adapters use public names of threadlets."""
    for path, tree in sources(root, "adapters"):
        taken = [each for each in imports(path, tree) if each.room]
        ours = {each.local.partition(".")[0] for each in taken}
        for each in taken:
            if any(private(part) for part in [*each.module.split("."), each.name]):
                yield f"{path}:{each.line} imports {each.module} {each.name}: adapters use public names"
        for node, _ in walk(tree):
            used = ast.unparse(node) if isinstance(node, ast.Attribute) and private(node.attr) else ""
            if used.partition(".")[0] in ours:
                yield f"{path}:{node.lineno} uses {used}: adapters use public names"


def borrowed_privates(root: Path) -> Iterator[str]:
    """Private names of asyncio and uvloop are used where PRIVATE says so, and nowhere else."""
    for path, tree in sources(root, "threadlets", "adapters"):
        taken = [each for each in imports(path, tree) if each.package in ("asyncio", "_asyncio", "uvloop")]
        theirs = {each.local.partition(".")[0] for each in taken}
        used = [(each.line, part) for each in taken for part in [*each.module.split("."), each.name] if private(part)]
        for node, _ in walk(tree):
            if isinstance(node, ast.Attribute):
                owner, name = ast.unparse(node.value), node.attr
            elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "setattr", "delattr"):
                owner, name = [*(ast.unparse(word).strip("'") for word in node.args[:2]), "", ""][:2]
            else:
                continue
            if owner.partition(".")[0] in theirs or owner.rpartition(".")[2] in ("loop", "_loop"):
                used += [(node.lineno, name)] if private(name) and not name.startswith("_threadlets") else []
        for line, name in used:
            if name not in PRIVATE.get(path, ()):
                yield f"{path}:{line} uses {name} of asyncio or uvloop: go through a file that PRIVATE lists"


def strange_names(root: Path) -> Iterator[str]:
    """Nothing imports the folder ``adapters`` as a package of its own: an installation has none."""
    for path, tree in sources(root, *PROJECT):
        for each in imports(path, tree):
            if each.package == "adapters":
                yield f"{path}:{each.line} imports {each.module}: it is called threadlets.{each.module}"


def long_files(root: Path) -> Iterator[str]:
    """A file of more than 400 lines says in its docstring why."""
    for path, tree in sources(root, *PROJECT):
        length = len((root / path).read_text(encoding="utf-8").splitlines())
        if length > LONG and f"{LONG} lines" not in (ast.get_docstring(tree) or ""):
            yield f"{path} has {length} lines: split it, or say in its docstring why it is over {LONG} lines"


def loud_modules(root: Path) -> Iterator[str]:
    """Only the command line prints."""
    for path, tree in sources(root, "threadlets", "adapters"):
        for node, _ in walk(tree):
            if path != "threadlets/cli.py" and isinstance(node, ast.Call) and ast.unparse(node.func) == "print":
                yield f"{path}:{node.lineno} prints: raise, warn, log, or return it to the command line"


def silent_tests(root: Path) -> Iterator[str]:
    """Every test opens with a sentence."""
    for path, tree in sources(root, "tests"):
        for node, _ in walk(tree):
            named = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
            if named and Path(path).name.startswith("test_") and not ast.get_docstring(node):
                yield f"{path}:{node.lineno} {node.name} has no docstring: say in a sentence what it shows"


TYPING = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    "

# For each check: a file (a bare name is a module of threadlets), its text, and the words by which the breach is told.
PLANTED: dict[Check, list[tuple[str, str, str]]] = {
    unknown_rooms: [
        ("helpers", "", "helpers.py is not in the house"),
        ("threadlets/core/__init__.py", "", "the house has one floor"),
    ],
    wrong_directions: [
        ("errors", "from .queues import PriorityQueue", "(words) imports queues (rules)"),
        ("errors", "from . import queues", "(words) imports queues (rules)"),
        ("errors", "import threadlets.queues", "(words) imports queues (rules)"),
        ("queues", "def f():\n    from . import pools", "queues.py:2 (rules) imports pools (doors)"),
        ("queues", "from .throttles import Rate", "(rules) imports throttles (rules)"),
        ("queues", TYPING + "from .workers import Group", "(rules) imports workers (machinery)"),
        ("queues", TYPING + "pass\nelse:\n    from .chains import Chain", "(rules) imports chains (rules)"),
        ("handles", "from .pools import Pool", "(doors) imports pools (doors)"),
        ("handles", TYPING + "from . import Pool", "(doors) imports __init__ (face)"),
        ("loops", "from .adapters.uvloop import Loop", "(machinery) imports adapters (street)"),
        ("loops", "from .helpers import Loop", "which is not in the house"),
    ],
    impure_rules: [
        ("queues", "import time", "queues.py:1 imports time"),
        ("chains", "from os.path import join", "imports os.path"),
        ("chains", "def f():\n    import asyncio.locks", "imports asyncio.locks"),
    ],
    false_face: [
        ("face", "from .pools import Pool", "Pool is imported, but not in __all__"),
        ("face", "from .pools import A, B\n__all__ = ['B', 'A']", "not sorted"),
        ("face", "from .pools import A, B\n__all__ = ['A']", "B is imported, but not in __all__"),
        ("face", "from .pools import A\n__all__ = ['A', 'B']", "B is not imported, but in __all__"),
        ("face", "from .pools import files\n__all__ = ['files']", "files is an exported object and a module"),
        ("face", "def files(): pass\n__all__ = ['files']", "files is an exported object and a module"),
    ],
    nosy_adapters: [
        ("adapters/x.py", "from threadlets.pools import _Slot", "imports threadlets.pools _Slot"),
        ("adapters/x.py", "from ..pools import _Slot", "imports threadlets.pools _Slot"),
        ("adapters/x.py", "import threadlets\nthreadlets.pools._slots()", "uses threadlets.pools._slots"),
    ],
    borrowed_privates: [
        ("pools", "import asyncio\nasyncio.tasks._leave_task()", "pools.py:2 uses _leave_task"),
        ("pools", "import asyncio.events as events\nevents._set_running_loop(None)", "uses _set_running_loop"),
        ("pools", "from asyncio import tasks\ntasks._leave_task()", "uses _leave_task"),
        ("pools", "from asyncio.tasks import _leave_task", "uses _leave_task"),
        ("pools", "from asyncio import Handle\nHandle._run", "uses _run"),
        ("pools", "import asyncio\ngetattr(asyncio.tasks, '_leave_task')", "uses _leave_task"),
        ("pools", "import _asyncio", "uses _asyncio"),
        ("pools", "class A:\n    def f(self):\n        self._loop._ready", "uses _ready"),
        ("takeover", "from asyncio.base_events import _unset_name", "uses _unset_name"),
        ("adapters/uvloop.py", "import uvloop\nuvloop._version", "uses _version"),
    ],
    strange_names: [("examples/demo.py", "from adapters.uvloop import Loop", "threadlets.adapters.uvloop")],
    long_files: [("pools", "'Short.'\n" + "x = 1\n" * LONG, "has 401 lines")],
    loud_modules: [("pools", "print('here')", "pools.py:1 prints")],
    silent_tests: [("tests/test_x.py", "class TestX:\n    async def test_y(self): pass", "test_y has no docstring")],
}

# For each check: a file and a text that it must leave alone.
ALLOWED: dict[Check, list[tuple[str, str]]] = {
    unknown_rooms: [("threadlets/adapters/x.py", "")],
    wrong_directions: [
        ("pools", "import asyncio\nfrom . import errors\nfrom .handles import Threadlet"),
        ("handles", TYPING + "from .pools import Pool"),
        ("threadlets/adapters/x.py", "import threadlets"),
    ],
    impure_rules: [("nodes", "import pathlib\n" + TYPING + "import os"), ("workers", "import threading")],
    false_face: [
        ("__init__", "from . import files\nfrom .a import _b\n__version__ = '1'\n__all__ = ['__version__', 'files']"),
    ],
    nosy_adapters: [("adapters/x.py", "import foreign\nfrom threadlets import Pool\nforeign._x\nPool.start")],
    borrowed_privates: [
        ("takeover", "from asyncio.tasks import _leave_task"),
        ("pools", "import asyncio\nasyncio.__name__\nself._ready"),
        ("homes", "loop._threadlets_home = 1"),
    ],
    long_files: [("pools", "'Over 400 lines, because it is a table.'\n" + "x = 1\n" * LONG)],
    loud_modules: [("cli", "print('here')")],
}


@pytest.mark.parametrize("check", PLANTED, ids=lambda check: check.__name__)
def test_this_checkout_keeps_the_rule(check: Check) -> None:
    """No check finds anything here."""
    assert not list(check(ROOT)), check.__doc__


def plant(root: Path, path: str, text: str) -> str:
    """Make a house with one file of this text, beside a module called files; return the file's path."""
    path = path if "/" in path else f"threadlets/{path}.py"
    for file in (root / "threadlets/files.py", root / path):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("")
    (root / path).write_text(text)
    return path


@pytest.mark.parametrize(("check", "planted"), [(check, each) for check in PLANTED for each in PLANTED[check]])
def test_a_planted_breach_is_told(check: Check, planted: tuple[str, str, str], tmp_path: Path) -> None:
    """Each check finds what it is there for, and says where."""
    path = plant(tmp_path, *planted[:2])
    assert any(path in breach and planted[2] in breach for breach in check(tmp_path))


@pytest.mark.parametrize(("check", "allowed"), [(check, each) for check in ALLOWED for each in ALLOWED[check]])
def test_what_is_allowed_is_left_alone(check: Check, allowed: tuple[str, str], tmp_path: Path) -> None:
    """No check complains about what the rules allow."""
    plant(tmp_path, *allowed)
    assert not list(check(tmp_path))
