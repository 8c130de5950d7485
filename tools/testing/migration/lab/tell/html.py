# SPDX-License-Identifier: GPL-2.0
"""Makes HTML of text that nobody vouches for: a crashed guest's log can hold anything."""

import html
from collections.abc import Sequence


def text(what: object) -> str:
    """`what` as the text of an element, or of an attribute in double quotes.

    What no reader would see (control characters, half of a surrogate pair, marks that turn the
    direction of writing round) is shown as a question mark.
    """
    said = "".join(char if char.isprintable() or char in "\n\t" else "?" for char in str(what))
    return html.escape(said, quote=True)


def element(name: str, inside: str = "", /, **attributes: object) -> str:
    """An element around `inside`, which is HTML already; attributes are text.

    An underscore ends the name of an attribute that Python has for itself, and is a hyphen
    elsewhere; an attribute that is None is left out.
    """
    said = "".join(f' {key.removesuffix("_").replace("_", "-")}="{text(value)}"'
                   for key, value in attributes.items() if value is not None)
    return f"<{name}{said}>{inside}</{name}>"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], caption: str, **attributes: object
          ) -> str:
    """A table of texts in a box of its own, which scrolls where the table is wider than the page.

    The first cell of each row is its header.
    """
    top = "".join(element("th", text(cell), scope="col") if cell else "<td></td>" for cell in head)
    body = "".join(
        "<tr>" + element("th", text(row[0]), scope="row")
        + "".join(element("td", text(cell)) for cell in row[1:]) + "</tr>\n" for row in rows)
    inside = (f"<caption>{text(caption)}</caption>\n<thead><tr>{top}</tr></thead>\n"
              f"<tbody>\n{body}</tbody>")
    return box(element("table", inside, **attributes), caption)


def box(inside: str, label: str) -> str:
    """A box that scrolls sideways; with the keyboard, too."""
    return element("div", inside, class_="box", role="region", aria_label=label,
                   tabindex="0") + "\n"
