"""What adapters share that change a foreign library: ``install()`` and ``uninstall()``, counted, a check of versions.

An adapter says how the change is made, and takes each step back in the reverse order when the last one who wanted it
has gone:

    def _change(changes: Changes[None]) -> None:
        check_version("threadlets.adapters.example", "example", example.__version__, TESTED, "install one of these")
        changes.exchange(example, "function", ours)

    _changes = Changes(_change)

    def install() -> Installation[None]:
        return _changes.install(None)

Why counted: a library and the program that uses it may both want it, and neither knows of the other. Each of them may
say other things, as which pool; what the newest one says holds (``Changes.value``).

Invariants: the change is in place while, and only while, there is somebody who wants it. If making it fails, what had
been done of it is taken back.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

__all__ = ["Changes", "Installation", "check_names", "check_version"]

T = TypeVar("T")


class Installation(Generic[T]):
    """One ``install()``: leaving ``with install():`` undoes it, and ``uninstall()`` does. Thread: any."""

    def __init__(self, changes: Changes[T], value: T) -> None:
        self._changes = changes
        self.value = value

    def __enter__(self) -> Installation[T]:
        return self

    def __exit__(self, *_: object) -> None:
        self.uninstall()

    def uninstall(self) -> None:
        """Undo it; once, however often it is called."""
        self._changes.remove(self)


class Changes(Generic[T]):
    """What one adapter changes, while somebody wants it. Thread: any.

    Args:
        make: Makes the change, with ``exchange`` and ``undo_by``. It is called with this.
    """

    def __init__(self, make: Callable[[Changes[T]], None]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._installed: list[Installation[T]] = []
        self._undo: list[Callable[[], object]] = []
        self.value: T | None = None  # what the newest one said; None: nobody wants it

    def install(self, value: T) -> Installation[T]:
        """Make the change, unless it is made, and return what undoes it."""
        installation = Installation(self, value)
        with self._lock:
            if not self._installed:
                try:
                    self._make(self)
                except BaseException:
                    self._take_back()
                    raise
            self._installed.append(installation)
            self.value = value
        return installation

    def uninstall(self) -> None:
        """Undo the newest ``install()`` that was not undone; nothing, if there is none."""
        with self._lock:
            last = self._installed[-1] if self._installed else None
        if last is not None:
            last.uninstall()

    def remove(self, installation: Installation[T]) -> None:
        """Undo one; nothing, if it was."""
        with self._lock:
            if installation in self._installed:
                self._installed.remove(installation)
                self.value = self._installed[-1].value if self._installed else None
                if not self._installed:
                    self._take_back()

    def exchange(self, where: Any, name: str, value: Any) -> None:
        """Set an attribute; what it was comes back, unless somebody else has exchanged it meanwhile."""
        own = name in vars(where)
        before = vars(where)[name] if own else None  # as it stands there: a classmethod, not what it binds to

        def undo() -> None:
            if vars(where).get(name) is value:
                if own:
                    setattr(where, name, before)
                else:
                    delattr(where, name)

        setattr(where, name, value)
        self._undo.append(undo)

    def undo_by(self, undo: Callable[[], object]) -> None:
        """Call this, too, when the change is taken back."""
        self._undo.append(undo)

    def _take_back(self) -> None:
        while self._undo:
            self._undo.pop()()


def check_names(adapter: str, library: str, tested: Sequence[str], *names: tuple[Any, str]) -> None:
    """Raise an error if a library has no longer the private names that an adapter leans on.

    Args:
        adapter: Its full name.
        library: As its users call it.
        tested: Its versions.
        names: Where each is looked for, and the name.

    Raises:
        ImportError: If one is missing.
    """
    for where, name in names:
        if not hasattr(where, name):
            raise ImportError(
                f"{adapter} needs {where.__qualname__}.{name}, which this version of {library} does not have: install "
                f"{library} {tested[-1]}, or use its own"
            )


def check_version(adapter: str, library: str, version: str, tested: Sequence[str], otherwise: str) -> None:
    """Warn if a library is of a version that an adapter was not tested with.

    Args:
        adapter: Its full name.
        library: As its users call it.
        version: That is here.
        tested: Its versions, each as long as it matters: ``("2.0", "2.1")``.
        otherwise: What to do if anything goes wrong.

    Warns:
        RuntimeWarning: If it was not tested with this version. It points at who calls the adapter's ``install()``.
    """
    parts = version.split(".")
    if any(parts[: known.count(".") + 1] == known.split(".") for known in tested):
        return
    warnings.warn(
        f"{adapter} was tested with {library} {' and '.join(tested)}, and this is {version}: if anything goes wrong, "
        f"{otherwise}, or install a version that was tested",
        RuntimeWarning,
        stacklevel=5,  # check_version, the adapter's change, Changes.install, the adapter's install
    )
