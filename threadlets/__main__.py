"""Runs the command line: ``python -m threadlets``."""

import sys

from .cli import main

sys.exit(main())
