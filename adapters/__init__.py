"""One file per foreign library: what it needs to live with threadlets, imported as ``threadlets.adapters.<name>``.

The folder stands beside the library because the library does not import it: an adapter may need anything, the core
needs Python alone. Each file imports its foreign library at the top, so importing it without that library is an
``ImportError`` that says what to install (but for ``aiofiles``, which is needed to install only). It uses only public
names of threadlets, and says which versions it was tested with. ``installations`` has what those share that change
their library; ``callables`` and ``serving`` what those share that are handed functions, and requests.
"""
