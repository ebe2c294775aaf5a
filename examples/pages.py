"""The HTML that a person sees: listings, search results and errors, as plain strings.

Why no template engine: three small pages, and the demo should need no more packages than it shows off.
"""

from __future__ import annotations

from html import escape
from urllib.parse import quote

from folders import Listing
from indexes import END, START, Hit

STYLE = """
:root { color-scheme: light dark; --line: #8884; --mark: #f2c14e88; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 52rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.3rem; overflow-wrap: anywhere; } a { text-decoration: none; } a:hover { text-decoration: underline; }
form { display: flex; gap: .5rem; margin: 1rem 0; } input { flex: 1; }
input, button { font: inherit; padding: .35rem .7rem; border: 1px solid var(--line); border-radius: .4rem; }
table { width: 100%; border-collapse: collapse; } td { padding: .25rem .4rem; border-top: 1px solid var(--line); }
td + td { text-align: right; white-space: nowrap; opacity: .7; font-variant-numeric: tabular-nums; }
pre { margin: .2rem 0 1rem; padding: .5rem .7rem; border-left: 3px solid var(--line); white-space: pre-wrap;
      overflow-wrap: anywhere; font-size: .85rem; }
mark { background: var(--mark); color: inherit; } footer { margin-top: 2rem; font-size: .85rem; opacity: .8; }
"""


def listing(found: Listing, name: str, mode: str) -> str:
    """Lay out one folder. `name` is what the top folder is called.

    Thread: any. Cancel: none.
    """
    rows = []
    if found.path:
        rows.append(_row(found.path.rpartition("/")[0], "..", ""))
    for entry in found.entries:
        path = f"{found.path}/{entry.name}" if found.path else entry.name
        if entry.size is None:
            rows.append(_row(path, entry.name + "/", ""))
        else:
            rows.append(_row(path, entry.name, size(entry.size)))
    body = f"<table>{''.join(rows)}</table>" if rows else "<p>Nothing here.</p>"
    return page(f"{name}/{found.path}", body, mode)


def results(words: str, hits: list[Hit], mode: str) -> str:
    """Lay out what a search has found.

    Thread: any. Cancel: none.
    """
    if not words.strip():
        body = "<p>Type one or more words; each result holds all of them.</p>"
    elif not hits:
        body = "<p>Nothing found. A result holds all the words within about twenty lines.</p>"
    else:
        body = "".join(
            f'<a href="{link(hit.path)}">{escape(hit.path)}</a> from line {hit.line}<pre>{_excerpt(hit)}</pre>'
            for hit in hits
        )
    return page(f"Search: {words}" if words.strip() else "Search", body, mode, words)


def error(status: int, reason: str, mode: str) -> str:
    """Lay out a refusal.

    Thread: any. Cancel: none.
    """
    return page(f"{status}: {reason}", '<p><a href="/">Back to the top folder</a></p>', mode)


def page(title: str, body: str, mode: str, words: str = "") -> str:
    """Put a title, the search box and the links below around a body.

    Args:
        title: plain text.
        body: HTML.
        mode: how the server runs its blocking functions; shown at the bottom.
        words: what stands in the search box.

    Thread: any. Cancel: none.
    """
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)}</title><style>{STYLE}</style><h1>{escape(title)}</h1>"
        '<form action="/search"><input type="search" name="q" aria-label="Words to search for" '
        f'placeholder="Search in all files" value="{escape(words)}"><button>Search</button></form>{body}'
        f'<footer><a href="/">files</a> · <a href="/sometimes">a call that blocks now and then</a> · '
        f'<a href="/statistics">statistics</a> · mode: {escape(mode)}</footer></html>'
    )


def link(path: str) -> str:
    """Return the address of a file or folder of the served folder.

    >>> link("a b/c#d")
    '/files/a%20b/c%23d'
    """
    return "/files/" + quote(path)


def size(count: int) -> str:
    """Write a number of bytes for people.

    >>> size(999), size(20_480), size(5_300_000)
    ('999 B', '20 KiB', '5.1 MiB')
    """
    if count < 1024:
        return f"{count} B"
    if count < 1024 * 1024:
        return f"{count / 1024:.0f} KiB"
    return f"{count / (1024 * 1024):.1f} MiB"


def _row(path: str, text: str, right: str) -> str:
    return f'<tr><td><a href="{link(path)}">{escape(text)}</a></td><td>{right}</td></tr>'


def _excerpt(hit: Hit) -> str:
    return escape(hit.excerpt.strip()).replace(START, "<mark>").replace(END, "</mark>")
