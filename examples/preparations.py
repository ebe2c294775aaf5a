"""What server and demo do before they serve: open the folder, build the index, or say why that cannot be done."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NoReturn

from folders import Folder
from indexes import Built, NoFullTextSearch, build
from rich.console import Console
from rich.progress import Progress


def fail(message: str) -> NoReturn:
    """Say on standard error why the program cannot go on, and exit with 1."""
    sys.exit(f"{Path(sys.argv[0]).name}: {message}")


def build_with_progress(folder: Folder, database: Path) -> Built:
    """Build the index with a progress bar, and a line for each file that had to be left out; exit if it cannot be.

    Args:
        folder: what to index.
        database: where to, a new file.
    """
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("indexing", total=None)

        def warn(path: str, reason: str) -> None:
            progress.console.print(f"skipped {path!r}: {reason}", markup=False, highlight=False, soft_wrap=True)

        def step(done: int, total: int) -> None:
            progress.update(bar, completed=done, total=total)

        try:
            built = build(folder, database, warn, step)
        except NoFullTextSearch as error:
            fail(str(error))
    if not built.files:
        fail(f"the folder {folder.root} holds no file that can be served")
    return built


def open_folder(path: Path) -> Folder:
    """Open the folder to serve; exit with a message if that is impossible."""
    try:
        return Folder(path)
    except FileNotFoundError:
        fail(f"there is no folder {path}")
    except NotADirectoryError:
        fail(f"{path} is not a folder")
    except OSError as error:
        fail(f"the folder {path} cannot be read: {error.strerror}")
