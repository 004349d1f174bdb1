"""
HTML that is escaped by construction: text becomes markup only through L{element}.
"""

from html import escape
from typing import Final

import msgspec

from fjmcp_broker.secret import Confidential

#: Elements without content and end tag.
_VOID: Final = frozenset({"input", "meta"})


class Html(Confidential, msgspec.Struct, frozen=True):
    """
    A piece of markup. Only this module makes one, except for the style sheet.

    @ivar markup: well formed HTML.
    """

    markup: str


Content = Html | str


def element(name: str, /, *content: Content, **attributes: str) -> Html:
    """
    @param name: of the element, ours.
    @param content: markup as it is, text escaped; text may be controlled by anybody.
    @param attributes: values are escaped; C{class_} stands for C{class}, C{_} within
        a name for a hyphen.
    @return: the element.
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"'
        for key, value in attributes.items()
    )
    if name in _VOID:
        return Html(f"<{name}{written}>")
    inner = "".join(
        piece.markup if isinstance(piece, Html) else escape(piece) for piece in content
    )
    return Html(f"<{name}{written}>{inner}</{name}>")
