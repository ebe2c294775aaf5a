"""A PostgreSQL server of our own, for tests: in a temporary folder, over a unix socket, with nothing to lose.

    with serving() as url:
        sqlalchemy.create_engine(f"postgresql+psycopg://{url}")

Skips the test where there is none. PostgreSQL refuses to run as root: there it runs as the user that its packages make,
or as ``nobody``. Nobody else may reach its folder, so it asks for no password; and it syncs nothing to disk.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support import eventually

INSTALLED = "/usr/lib/postgresql"  # where Debian has it, by version; elsewhere it is on the path
QUICK = ["fsync=off", "synchronous_commit=off", "full_page_writes=off", "shared_buffers=16MB", "listen_addresses="]

# Runs a program until our end of the pipe is closed, as it is however we end. SIGQUIT: at once; nothing is to be kept.
WHILE_WE_LIVE = '"$0" "$@" & read -r nothing; kill -QUIT $!; wait'


def binaries() -> Path | None:
    """Return the folder of PostgreSQL's programs, those of the newest version; None if there is none."""
    versions = [path for path in Path(INSTALLED).glob("*/bin") if (path / "initdb").exists()]
    if versions:
        return max(versions, key=lambda path: float(path.parent.name))
    found = shutil.which("initdb")
    return None if found is None else Path(found).resolve().parent


def somebody() -> str | None:
    """Return as whom to run it; None: as we are. Skips if we are root, and there is nobody else."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    for name in ("postgres", "nobody"):
        if name in names:
            return name
    pytest.skip("PostgreSQL does not run as root, and there is no other user")


@contextmanager
def serving() -> Iterator[str]:
    """Run a server; yield what follows ``postgresql://`` in its URL, which libpq, SQLAlchemy and asyncpg understand."""
    programs = binaries()
    if programs is None:
        pytest.skip("PostgreSQL is not installed")
    user = somebody()
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))  # not pytest's: the path of a socket has to be short
    try:
        if user is not None:
            shutil.chown(folder, user)
        options = {"user": user, "cwd": folder, "env": {**os.environ, "LC_ALL": "C", "TZ": "UTC"}}
        made = subprocess.run(
            [programs / "initdb", "-D", folder / "data", "-U", "threadlets", "-A", "trust", "-E", "UTF8", "--no-sync"],
            capture_output=True,
            text=True,
            check=False,
            **options,
        )
        assert made.returncode == 0, made.stderr
        command = ["sh", "-c", WHILE_WE_LIVE, programs / "postgres", "-D", folder / "data", "-k", folder]
        for setting in QUICK:
            command += ["-c", setting]
        options |= {"stdin": subprocess.PIPE, "start_new_session": True}  # Ctrl-C is for the tests
        with open(folder / "log", "w") as log, subprocess.Popen(command, stdout=log, stderr=log, **options):
            ready = [programs / "pg_isready", "-q", "-h", folder]
            try:
                eventually(lambda: subprocess.run(ready, check=False).returncode == 0)
            except AssertionError:
                pytest.fail((folder / "log").read_text())
            yield f"threadlets@/postgres?host={folder}"
    finally:
        shutil.rmtree(folder, ignore_errors=True)
