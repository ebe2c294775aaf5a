"""Threadlets for asyncio: functions that run in place until they would block.

>>> from threadlets import run, threadlet
>>> @threadlet
... def load(path):
...     with open(path) as file:
...         return file.read()
>>> async def main():
...     return len(await load(__file__)) > 0
>>> run(main())
True

What is public is in ``face``, and imported when the first name is asked for: pytest imports this package in every run,
to ask its plugin for options, and who does not use it need not wait for the rest.
"""

import typing as _typing  # checkers know TYPE_CHECKING by its own name alone

__version__ = "0.1.0"

if _typing.TYPE_CHECKING:
    from .face import *  # noqa: F403
    from .face import __all__ as __all__
else:

    def __getattr__(name: str) -> object:
        """Import all that is public, and keep it here; a room that is asked for by its name, by itself."""
        from importlib import import_module
        from importlib.util import find_spec
        from sys import modules

        if name.isidentifier() and not name.startswith("_") and find_spec(f"{__name__}.{name}") is not None:
            return import_module(f"{__name__}.{name}")
        if name == "__all__" or not name.startswith("_"):
            face = import_module(f"{__name__}.face")
            if name == "__all__" or name in face.__all__:
                for each in (*face.__all__, "__all__"):
                    globals().setdefault(each, getattr(face, each))  # what somebody has put in its place stays there
                return getattr(face, name)
        # With these, Python says "did you mean".
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name, obj=modules[__name__])

    def __dir__() -> list[str]:
        from .face import __all__ as names

        return sorted({*globals(), *names})
