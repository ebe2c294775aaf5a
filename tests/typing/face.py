"""What checkers know of the package itself. Checked by mypy and pyright, never run."""

from __future__ import annotations

from typing import assert_type

import threadlets
from threadlets import Concurrency, Pool

assert_type(threadlets.Pool(threadlets.Concurrency(1)), Pool)
assert_type(threadlets.__version__, str)
assert_type(Concurrency(1).limit, int)
threadlets.Poool  # type: ignore[attr-defined]  # pyright: ignore  # a misspelt name is told
