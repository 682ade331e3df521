"""HTML out of templates in which every value is escaped, unless it is HTML already.

Templates are `string.Template` texts. Values stand between tags or in quoted attributes, never anywhere else;
addresses from outside go through `link` first.
"""

from __future__ import annotations

import html
from collections.abc import Iterable
from functools import lru_cache
from string import Template
from urllib.parse import urlsplit


class Markup(str):
    """Text that is HTML: made by `fill` and `markup`, out of nothing else."""

    __slots__ = ()


EMPTY = Markup("")


def markup(trusted: str) -> Markup:
    """A constant of this program as HTML; never a value from outside."""
    return Markup(trusted)


def escape(value: object) -> Markup:
    """*value* as text in HTML; None is nothing."""
    if isinstance(value, Markup):
        return value
    return EMPTY if value is None else Markup(html.escape(str(value), quote=True))


def fill(template: str, **values: object) -> Markup:
    """*template* with every ``$name`` filled in, escaped."""
    return Markup(_compiled(template).substitute({name: escape(value) for name, value in values.items()}))


def join(parts: Iterable[Markup], between: str = "\n") -> Markup:
    """*parts* one after the other."""
    return Markup(between.join(parts))


def link(address: str | None) -> str | None:
    """*address* if it may be linked to: http or https, nothing that runs."""
    if not address:
        return None
    try:
        parts = urlsplit(address)
    except ValueError:
        return None
    return address if parts.scheme in ("http", "https") and parts.hostname else None


@lru_cache(maxsize=256)
def _compiled(template: str) -> Template:
    return Template(template)
