"""One file per foreign library: what it needs to live with threadlets, imported as ``threadlets.adapters.<name>``.

The folder stands beside the library because the library does not import it: an adapter may need anything, the core
needs Python alone. Each file imports its foreign library at the top, so importing it without that library is an
ordinary ``ModuleNotFoundError`` (but for ``aiofiles``, which is needed to install only), and uses only the public names
of threadlets. What those share that change their library is in ``installations``.
"""
