"""aiofiles at the speed of the page cache: by a change of one import line, or in place for those who use it already.

    from threadlets.adapters import aiofiles            # instead of: import aiofiles, aiofiles.os

    async with aiofiles.open("index.html") as file:
        text = await file.read()
    size = (await aiofiles.os.stat("index.html")).st_size

*A drop-in*. It has the names of aiofiles, also those of ``aiofiles.os``, ``.ospath``, ``.tempfile`` and ``.threadpool``
as modules below it, and does not need aiofiles. What ``open`` returns is a ``threadlets.files.File``. ``loop=`` and
``executor=`` are accepted and not looked at: the loop is the one that runs, and what has to leave it goes the ways of
threadlets. ``wrap`` makes a coroutine function of any other function, which is called on a worker.

*In place*. ``install()`` changes the aiofiles package itself; who has imported its names before has the fast ones, too:

    import threadlets.adapters.aiofiles
    threadlets.adapters.aiofiles.install()

What it changes are the few things that aiofiles' functions look up when they are called:

- ``aiofiles.threadpool._open``, what ``wrap`` of that module does with Python's own files, and how ``async with``
  closes them. The objects that these return are Files *and* of aiofiles' classes: ``isinstance`` holds, and so does
  what leans on their ``_file``. They stay what they are after ``uninstall()``; those from before stay as they were.
- the loop that ``aiofiles.os`` and ``.ospath`` find: a stand-in, whose ``run_in_executor`` knows those of their
  functions that need not leave it. So what somebody made with ``aiofiles.os.wrap`` of such a function is quick, too;
  what he made of a function of his own is left to the executor, since nobody knows what it waits for.
- the loop that ``aiofiles.tempfile`` finds: another one, which has learned where temporary files are best dealt with.

Left to aiofiles: calls with ``executor=``, since somebody wants them there; calls of ``aiofiles.os`` with ``loop=``;
``stdin`` and its like; ``open`` while ``aiofiles.threadpool.sync_open`` is somebody's mock, as aiofiles' README has it
(the drop-in has that name, too).

*Standard streams*. ``stdin`` and the others are what ``sys.stdin`` is at the moment of a call. Each is used on one
worker thread, one call after the other. A cancel ends the await at once; the read goes on, and what it reads is lost,
as with aiofiles; but it does not keep the program from ending.

Rejected: to exchange the code of each function (there is one for every ``wrap``, and nobody knows where those are); to
change the methods of aiofiles' classes (after ``uninstall()``, lines that were read ahead would be gone).

Assumes, and checks when installed: the names above are there. Tested with aiofiles 24.1 and 25.1.

Over 400 lines: an adapter is one file, and this one is two: what replaces aiofiles, and what changes it.
"""

from __future__ import annotations

import asyncio
import builtins
import io
import os as _os
import stat as _statuses
import sys
from collections.abc import Awaitable, Callable, Coroutine, Generator
from functools import partial, singledispatch, wraps
from importlib import import_module
from types import ModuleType, SimpleNamespace, TracebackType
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, overload

from threadlets import Contract, Entrypoint, files
from threadlets import temporaries as _temporaries
from threadlets.files import File
from threadlets.ways import Ways

from .installations import Changes, Installation, check_version

if TYPE_CHECKING:
    from _typeshed import OpenBinaryMode, OpenTextMode

__all__ = [
    "TESTED",
    "Installation",
    "install",
    "open",
    "os",
    "ospath",
    "stderr",
    "stderr_bytes",
    "stdin",
    "stdin_bytes",
    "stdout",
    "stdout_bytes",
    "tempfile",
    "threadpool",
    "uninstall",
]

TESTED = ("24.1", "25.1")  # versions of aiofiles

P = ParamSpec("P")
R = TypeVar("R")
M = TypeVar("M")

# ------------------------------------------------------------------------------------------------------- open files


class AsyncTextIOWrapper(File[str]):
    """An open file of text."""

    __slots__ = ()

    async def readable(self) -> bool:  # type: ignore[override]  # that of aiofiles is one, for text alone
        """Say whether it was opened for reading."""
        return super().readable()


class AsyncBufferedIOBase(File[bytes]):
    """An open binary file."""

    __slots__ = ()


class AsyncBufferedReader(AsyncBufferedIOBase):
    """An open binary file that can be read."""

    __slots__ = ()


class AsyncFileIO(File[bytes]):
    """An open binary file without buffer."""

    __slots__ = ()


OPERATIONS = frozenset(
    "close flush isatty peek read read1 readall readinto readline readlines seek seekable tell truncate writable write"
    " writelines".split()
)
ATTRIBUTES = frozenset(
    "buffer closed detach encoding errors fileno line_buffering mode name newlines raw readable".split()
)


def _call(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Thread: any."""
    return function(*args, **kwargs)


class AsyncIndirectBufferedIOBase:
    """A binary file that is looked up at each operation, and used on a worker.

    Args:
        name: What it is called.
        indirect: Returns Python's own.
        contract: On which worker.
    """

    def __init__(self, name: str, indirect: Callable[[], Any], contract: Contract) -> None:
        self._name = name
        self._indirect = indirect
        self._entrypoint = Entrypoint[..., Any](_call, contract=contract)

    async def _operate(self, name: str, *args: Any) -> Any:
        return await self._entrypoint(getattr(self._indirect(), name), *args)

    def __getattr__(self, name: str) -> Any:
        """Return an operation, as a coroutine function, or an attribute."""
        if name in OPERATIONS:
            return partial(self._operate, name)
        if name in ATTRIBUTES:
            return getattr(self._indirect(), name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self)

    def __aiter__(self) -> AsyncIndirectBufferedIOBase:
        return self

    async def __anext__(self) -> Any:
        if line := await self._operate("readline"):
            return line
        raise StopAsyncIteration

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._name}>"


class AsyncTextIndirectIOWrapper(AsyncIndirectBufferedIOBase):
    """The same, of text."""

    async def readable(self) -> bool:
        """Say whether it was opened for reading."""
        return bool(self._indirect().readable())


def _standard(name: str) -> Any:
    """Return what stands for ``sys.stdin``, or for ``sys.stdin.buffer``, and so on."""
    stream, _, buffer = name.partition(".")
    contract = Contract(blocks="always", affinity=f"one:{__name__}.{stream}", cancel="abandon")
    if buffer:
        return AsyncIndirectBufferedIOBase(f"sys.{name}", lambda: getattr(sys, stream).buffer, contract)
    return AsyncTextIndirectIOWrapper(f"sys.{name}", lambda: getattr(sys, stream), contract)


stdin: AsyncTextIndirectIOWrapper = _standard("stdin")
stdout: AsyncTextIndirectIOWrapper = _standard("stdout")
stderr: AsyncTextIndirectIOWrapper = _standard("stderr")
stdin_bytes: AsyncIndirectBufferedIOBase = _standard("stdin.buffer")
stdout_bytes: AsyncIndirectBufferedIOBase = _standard("stdout.buffer")
stderr_bytes: AsyncIndirectBufferedIOBase = _standard("stderr.buffer")


def _is_plain(file: Any) -> bool:
    """Say whether it is a file of Python's own, down to the descriptor: not one that unpacks, or a socket's."""
    if type(file) is io.TextIOWrapper:
        file = file.buffer
    if type(file) in (io.BufferedReader, io.BufferedWriter, io.BufferedRandom):
        file = file.raw
    return type(file) is io.FileIO


@singledispatch
def wrap(file: Any, *, loop: object = None, executor: object = None) -> Any:
    """Return the asynchronous object of a file that Python has opened.

    Raises:
        TypeError: If it is none.
    """
    raise TypeError(f"Unsupported io type: {file}.")


def _wraps(cls: type[File[Any]], *kinds: type) -> None:
    """Let ``wrap`` make this of files of some kinds; what is not Python's own is used on workers."""

    def make(file: Any, *, loop: object = None, executor: object = None) -> Any:
        if _is_plain(file):
            return cls(file)
        indirect = AsyncTextIndirectIOWrapper if cls is AsyncTextIOWrapper else AsyncIndirectBufferedIOBase
        return indirect(repr(file), lambda: file, Contract(blocks="always", cancel="abandon"))

    for kind in kinds:
        wrap.register(kind, make)


_wraps(AsyncTextIOWrapper, io.TextIOBase)
_wraps(AsyncBufferedIOBase, io.BufferedIOBase, io.BufferedWriter)
_wraps(AsyncBufferedReader, io.BufferedReader, io.BufferedRandom)
_wraps(AsyncFileIO, io.FileIO)


def _kind_of(mode: str, buffering: int) -> type[File[Any]]:
    """Return which class a file is of that was opened so."""
    if "b" not in mode:
        return AsyncTextIOWrapper
    if buffering == 0:
        return AsyncFileIO
    return AsyncBufferedReader if "r" in mode or "+" in mode else AsyncBufferedIOBase


class AiofilesContextManager(Generic[M]):
    """What ``open`` and its like return: await it, any number of times, or enter it with ``async with``."""

    __slots__ = ("_make", "_obj")

    def __init__(self, make: Callable[[], Awaitable[M]]) -> None:
        self._make = make
        self._obj: Any = None

    def __await__(self) -> Generator[Any, Any, M]:
        if self._obj is None:
            self._obj = yield from self._make().__await__()
        return self._obj  # type: ignore[no-any-return]

    async def __aenter__(self) -> M:
        if self._obj is None:
            self._obj = await self._make()
        return self._obj  # type: ignore[no-any-return]

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        made, self._obj = self._obj, None
        await made.__aexit__(kind, error, traceback)


class AiofilesContextManagerTempDir(AiofilesContextManager[Any]):
    """That of a temporary folder: ``async with`` gives its name."""

    __slots__ = ()

    async def __aenter__(self) -> Any:
        return (await self).name


_mocks = Entrypoint[..., Any](_call, contract=Contract(blocks="always"))


async def _open(file: Any, mode: str, buffering: int, *options: Any) -> Any:
    opens = threadpool.__dict__["sync_open"]
    if opens is not builtins.open:
        return wrap(await _mocks(opens, file, mode, buffering, *options))
    opened: Any = await files.open(file, mode, buffering, *options)
    opened.__class__ = _kind_of(mode, buffering)  # these have nothing of their own: made so, it costs nothing
    return opened


@overload
def open(
    file: Any, mode: OpenTextMode = "r", *args: Any, **options: Any
) -> AiofilesContextManager[AsyncTextIOWrapper]: ...
@overload
def open(
    file: Any, mode: OpenBinaryMode, *args: Any, **options: Any
) -> AiofilesContextManager[AsyncBufferedIOBase]: ...
@overload
def open(file: Any, mode: str, *args: Any, **options: Any) -> AiofilesContextManager[Any]: ...


def open(
    file: Any,
    mode: str = "r",
    buffering: int = -1,
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
    closefd: bool = True,
    opener: Callable[[str, int], int] | None = None,
    *,
    loop: object = None,
    executor: object = None,
) -> AiofilesContextManager[Any]:
    """Open a file, as ``threadlets.files.open`` does: await it, or enter it with ``async with``.

    Args:
        file: Its path, or a descriptor.
        mode: As that of the builtin ``open``; as are all others but the last two.
        buffering: In bytes.
        encoding: Of a file of text.
        errors: How mistakes of encoding are treated.
        newline: How ends of lines are.
        closefd: Whether closing the file closes a given descriptor.
        opener: What is called to open it.
        loop: Not looked at.
        executor: Not looked at.

    Raises:
        OSError, ValueError, TypeError, LookupError: When it is awaited: as the builtin.

    Thread: loop. Cancel: point.
    """
    return AiofilesContextManager(partial(_open, file, mode, buffering, encoding, errors, newline, closefd, opener))


# ------------------------------------------------------------------------------------------------- names and folders


class _Entries:
    """What is in a folder, read already, with the methods of what ``os.scandir`` returns."""

    def __init__(self, *args: Any) -> None:
        with _os.scandir(*args) as entries:
            self._entries = iter(list(entries))

    def __iter__(self) -> _Entries:
        return self

    def __next__(self) -> Any:
        return next(self._entries)

    def __enter__(self) -> _Entries:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Forget what is left."""
        self._entries = iter(())


def _threadlet(function: Callable[..., Any], blocks: Any = "maybe") -> Callable[..., Coroutine[Any, Any, Any]]:
    """Return a coroutine function that calls one where that is best done."""
    entrypoint = Entrypoint[..., Any](function, contract=Contract(blocks=blocks))

    async def call(*args: Any, **kwargs: Any) -> Any:
        return await entrypoint(*args, **kwargs)

    return call


def _at_once(function: Callable[..., Any]) -> Callable[..., Coroutine[Any, Any, Any]]:
    async def call(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return call


def _field(name: str) -> Callable[..., Coroutine[Any, Any, Any]]:
    async def call(filename: Any) -> Any:
        return getattr(await files.stat(filename), name)

    return call


_stat_at = _threadlet(_os.stat)


async def _stat(path: Any, *, dir_fd: int | None = None, follow_symlinks: bool = True) -> Any:
    if dir_fd is not None:
        return await _stat_at(path, dir_fd=dir_fd, follow_symlinks=follow_symlinks)
    return await files.stat(path, follow_symlinks=follow_symlinks)


async def _islink(path: Any) -> bool:
    try:
        return _statuses.S_ISLNK((await files.lstat(path)).st_mode)
    except (OSError, ValueError, AttributeError):
        return False


async def _samefile(f1: Any, f2: Any) -> bool:
    return _os.path.samestat(await files.stat(f1), await files.stat(f2))


async def _isdir(s: Any) -> bool:
    return await files.is_dir(s)


_PATHS = "abspath exists getatime getctime getmtime getsize isdir isfile islink ismount samefile sameopenfile".split()
_NAMES = (
    "access getcwd link listdir makedirs mkdir readlink remove removedirs rename renames replace rmdir scandir sendfile"
    " stat statvfs symlink unlink"
).split()

# How each function of os and os.path that aiofiles has is done without a thread, or at least without a hop each time.
_quick: dict[Callable[..., Any], Callable[..., Coroutine[Any, Any, Any]]] = {
    function: getattr(files, name, None) or _threadlet(function)
    for name in _NAMES
    if (function := getattr(_os, name, None)) is not None
}
_quick |= {
    _os.getcwd: _at_once(_os.getcwd),
    _os.scandir: _threadlet(_Entries),
    _os.stat: _stat,
    _os.path.abspath: _at_once(_os.path.abspath),
    _os.path.exists: files.exists,
    _os.path.getatime: _field("st_atime"),
    _os.path.getctime: _field("st_ctime"),
    _os.path.getmtime: _field("st_mtime"),
    _os.path.getsize: _field("st_size"),
    _os.path.isdir: _isdir,
    _os.path.isfile: files.is_file,
    _os.path.islink: _islink,
    _os.path.ismount: _threadlet(_os.path.ismount),
    _os.path.samefile: _samefile,
    _os.path.sameopenfile: _at_once(_os.path.sameopenfile),
}
if hasattr(_os, "sendfile"):
    _quick[_os.sendfile] = _threadlet(_os.sendfile, "always")  # to a socket whose reader may be on this loop


def _quick_way(function: Any) -> Callable[..., Coroutine[Any, Any, Any]] | None:
    try:
        return _quick.get(function)
    except TypeError:  # it has no hash
        return None


def _wrap_function(func: Callable[P, R]) -> Callable[..., Coroutine[Any, Any, R]]:
    """Return a coroutine function that calls one of ``os`` where that is best done, and any other one on a worker."""
    call = _quick_way(func) or _threadlet(func, "always")

    @wraps(func)
    async def run(*args: Any, loop: object = None, executor: object = None, **kwargs: Any) -> R:
        return await call(*args, **kwargs)  # type: ignore[no-any-return]

    return run


# ---------------------------------------------------------------------------------------------------------- modules


def _temporary(kind: str, manager: type[AiofilesContextManager[Any]] = AiofilesContextManager) -> Any:
    """Return a function of ``tempfile``."""
    make = getattr(_temporaries, kind)

    @wraps(make)
    def function(*args: Any, loop: object = None, executor: object = None, **kwargs: Any) -> Any:
        return manager(lambda: make(*args, **kwargs))

    return function


def _module(name: str, contents: dict[str, Any]) -> ModuleType:
    """Make a module below this one, which can be imported from, too."""
    module = ModuleType(f"{__name__}.{name}", f"Stands for aiofiles.{name}.")
    vars(module).update(contents, __all__=[each for each in contents if not each.startswith("_")])
    sys.modules[module.__name__] = module
    return module


def _functions(module: Any, names: list[str]) -> dict[str, Any]:
    return {name: _wrap_function(getattr(module, name)) for name in names if hasattr(module, name)}


_streams = {
    "stdin": stdin,
    "stdout": stdout,
    "stderr": stderr,
    "stdin_bytes": stdin_bytes,
    "stdout_bytes": stdout_bytes,
    "stderr_bytes": stderr_bytes,
}
_binary: dict[str, type] = {"AsyncBufferedIOBase": AsyncBufferedIOBase, "AsyncBufferedReader": AsyncBufferedReader}
_binary |= {"AsyncFileIO": AsyncFileIO, "AsyncIndirectBufferedIOBase": AsyncIndirectBufferedIOBase}
_text = {"AsyncTextIOWrapper": AsyncTextIOWrapper, "AsyncTextIndirectIOWrapper": AsyncTextIndirectIOWrapper}
if TYPE_CHECKING:
    from aiofiles import os, ospath, tempfile, threadpool
else:
    ospath = _module("ospath", {**_functions(_os.path, _PATHS), "wrap": _wrap_function})
    os = _module("os", {**_functions(_os, _NAMES), "path": ospath, "wrap": _wrap_function})
    tempfile = _module(
        "tempfile",
        {
            "NamedTemporaryFile": _temporary("NamedTemporaryFile"),
            "TemporaryFile": _temporary("TemporaryFile"),
            "SpooledTemporaryFile": _temporary("SpooledTemporaryFile"),
            "TemporaryDirectory": _temporary("TemporaryDirectory", AiofilesContextManagerTempDir),
        },
    )
    threadpool = _module(
        "threadpool", {"open": open, "sync_open": builtins.open, "wrap": wrap, **_streams, **_binary, **_text}
    )
    threadpool.binary = _module("threadpool.binary", _binary)
    threadpool.text = _module("threadpool.text", _text)


# ---------------------------------------------------------------------------------------------------------- in place


def install() -> Installation[None]:
    """Make the aiofiles package quick, also for who has imported it already.

    It may be called several times, and lasts until each of them was undone.

    Returns:
        What undoes it; also a context manager.

    Raises:
        ImportError: If aiofiles is not installed.
        RuntimeError: If this version of aiofiles is not made as we know it.

    Warns:
        RuntimeWarning: If it was not tested with this version of aiofiles.

    Thread: any.
    """
    return _changes.install(None)


def uninstall() -> None:
    """Undo the last ``install()`` that was not undone; nothing, if there is none. Thread: any."""
    _changes.uninstall()


_temporaries_done = Ways(_call)  # what is done to temporary files


class _StandIn:
    """Stands for the running loop where aiofiles looks for it: to have something done in an executor."""

    def __init__(self, choose: Callable[[Any], Awaitable[Any] | None]) -> None:
        self._choose = choose

    def get_running_loop(self) -> Any:
        """Return this, if a loop runs."""
        asyncio.get_running_loop()
        return self

    def run_in_executor(self, executor: Any, function: Any, *args: Any) -> Any:
        """Call a function where that is best done, if we know it; there, if not."""
        chosen = self._choose(partial(function, *args)) if executor is None else None
        return chosen or asyncio.get_running_loop().run_in_executor(executor, function, *args)

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio.get_running_loop(), name)


def _choose(call: partial[Any]) -> Awaitable[Any] | None:
    quick = _quick_way(call.func)
    return quick and quick(*call.args, **call.keywords)


def _choose_temporary(call: partial[Any]) -> Awaitable[Any]:
    is_folder = hasattr(getattr(call.func, "__self__", None), "cleanup")  # it may take as long as there is in it
    return (_temporaries_done.away if is_folder else _temporaries_done.on())(call)


_loop = _StandIn(_choose)
_loop_of_temporaries = _StandIn(_choose_temporary)


def _change(changes: Changes[None]) -> None:
    from importlib import metadata  # here: it takes 15 ms, and the drop-in does not need it

    try:
        version = metadata.version("aiofiles")
        base, pool, temporaries, ospath = (
            import_module(f"aiofiles.{name}") for name in ("base", "threadpool", "tempfile", "ospath")
        )
    except ImportError as error:
        raise ImportError("aiofiles is not installed: pip install 'threadlets[aiofiles]'") from error
    check_version(
        "threadlets.adapters.aiofiles",
        "aiofiles",
        version,
        TESTED,
        "import threadlets.adapters.aiofiles instead of aiofiles",
    )
    try:
        before_open, before_exit, registry = pool._open, base.AiofilesContextManager.__aexit__, pool.wrap.registry
        finds_loop = ospath if hasattr(ospath, "asyncio") else None  # as aiofiles 24 does it
        needed = base.get_running_loop, temporaries.asyncio, pool.sync_open
        assert all(needed)
        kinds = {ours: _of_both(ours, getattr(pool, ours.__name__)) for ours in _OURS}
        wrapping = {kind: registry[kind] for kind in _KINDS}
    except (AttributeError, KeyError) as error:
        raise RuntimeError(
            f"aiofiles {version} is not made as threadlets.adapters.aiofiles knows it ({error}): import "
            f"threadlets.adapters.aiofiles instead of aiofiles, or install aiofiles {TESTED[-1]}"
        ) from error

    @wraps(before_open)
    async def open(
        file: Any,
        mode: str = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
        closefd: bool = True,
        opener: Any = None,
        *,
        loop: Any = None,
        executor: Any = None,
    ) -> Any:
        request = file, mode, buffering, encoding, errors, newline, closefd, opener
        if executor is not None or pool.sync_open is not builtins.open:
            return await before_open(*request, loop=loop, executor=executor)
        opened = await files.open(*request)
        return kinds[_kind_of(mode, buffering)](opened._file, buffering)

    def wrap(before: Callable[..., Any], file: Any, *, loop: Any = None, executor: Any = None) -> Any:
        if executor is not None or not _is_plain(file):
            return before(file, loop=loop, executor=executor)
        return kinds[_kind_of_plain(file)](file)

    async def aexit(self: Any, *error: Any) -> None:
        made, loop = self._obj, getattr(self._obj, "_loop", None)
        if isinstance(made, File):
            self._obj = None
            await made.__aexit__(*error)
        elif loop is _loop_of_temporaries:
            self._obj = None
            await loop.run_in_executor(made._executor, made._file.__exit__, *error)
        else:
            await before_exit(self, *error)

    changes.exchange(pool, "_open", open)
    for kind, before in wrapping.items():
        pool.wrap.register(kind, partial(wrap, before))
        changes.undo_by(partial(pool.wrap.register, kind, before))
    changes.exchange(base.AiofilesContextManager, "__aexit__", aexit)
    changes.exchange(base, "get_running_loop", _loop.get_running_loop)
    if finds_loop is not None:
        changes.exchange(finds_loop, "asyncio", SimpleNamespace(get_running_loop=_loop.get_running_loop))
    changes.exchange(temporaries, "asyncio", SimpleNamespace(get_running_loop=_loop_of_temporaries.get_running_loop))


def _kind_of_plain(file: Any) -> type[File[Any]]:
    if isinstance(file, io.TextIOBase):
        return AsyncTextIOWrapper
    if isinstance(file, io.BufferedWriter):
        return AsyncBufferedIOBase
    return AsyncFileIO if isinstance(file, io.FileIO) else AsyncBufferedReader


_OURS: tuple[type[File[Any]], ...] = (AsyncTextIOWrapper, AsyncBufferedIOBase, AsyncBufferedReader, AsyncFileIO)
_KINDS = (io.TextIOBase, io.BufferedIOBase, io.BufferedWriter, io.BufferedReader, io.BufferedRandom, io.FileIO)


def _of_both(ours: type[File[Any]], theirs: type) -> type[File[Any]]:
    """Make a class of what is a ``File``, and one of aiofiles' files as well."""
    return type(ours.__name__, (ours, theirs), {"_executor": None, "_ref_loop": None, "__doc__": ours.__doc__})


_changes = Changes(_change)
