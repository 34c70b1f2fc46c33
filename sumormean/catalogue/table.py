"""A table that a reader can sort and filter on the page, and that is a plain table elsewhere.

The site's ``book/_static/table.js`` adds the search field, the choice and a button in each heading.
"""

import html
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Cell:
    """What a cell shows, what it is sorted by (default: what it shows), and a link."""

    text: str
    value: float | None = None
    link: str | None = None


@dataclass(frozen=True)
class Table:
    """Rows of text or of ``Cell``; a notebook shows it as HTML, print shows it as text.

    Parameters
    ----------
    name : str
        The HTML id, of letters and hyphens, unique on its page.
    choice : str
        The column whose values a reader may choose from.

    Examples
    --------
    >>> rows = [["sum", "1"], ["mean", "784"]]
    >>> print(Table("example", "Two losses", ["loss", "β"], rows, choice="loss"))
    loss  β
    sum   1
    mean  784
    """

    name: str
    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str | Cell]] = field(repr=False)
    choice: str

    def __repr__(self) -> str:
        lines = [list(self.columns)] + [[_cell(c).text for c in row] for row in self.rows]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        padded = [[t.ljust(w) for t, w in zip(line, widths, strict=True)] for line in lines]
        return "\n".join("  ".join(line).rstrip() for line in padded)

    def _repr_html_(self) -> str:
        heads = "".join(f'<th scope="col">{html.escape(c)}</th>' for c in self.columns)
        rows = "\n".join(f"<tr>{''.join(map(_html, map(_cell, row)))}</tr>" for row in self.rows)
        caption = html.escape(self.caption)
        return (
            f'<div class="sortable-table" role="region" aria-label="{caption}" tabindex="0">'
            f'<table id="{self.name}" data-choice="{list(self.columns).index(self.choice)}">'
            f"<caption>{caption}</caption>\n<thead><tr>{heads}</tr></thead>\n"
            f"<tbody>\n{rows}\n</tbody></table></div>"
        )


def _cell(cell: str | Cell) -> Cell:
    return cell if isinstance(cell, Cell) else Cell(cell)


def _html(cell: Cell) -> str:
    text = html.escape(cell.text)
    if cell.link is not None:
        text = f'<a href="{html.escape(cell.link)}">{text}</a>'
    # an empty value sorts last
    value = "" if cell.value is None else f' data-value="{cell.value:.9g}"'
    value = ' data-value=""' if cell.value != cell.value else value
    return f"<td{value}>{text}</td>"
