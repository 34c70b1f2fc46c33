"""Results as a table of the page: a cell shows it, no library is needed."""

import html
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """A table that notebooks show as HTML and terminals as text."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def _repr_html_(self) -> str:
        head = "".join(f'<th scope="col">{html.escape(cell)}</th>' for cell in self.head)
        body = "".join(
            f'<tr><th scope="row">{html.escape(first)}</th>'
            + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells)
            + "</tr>"
            for first, *cells in self.rows
        )
        return f'<table class="results"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'

    def __repr__(self) -> str:
        lines = [self.head, *self.rows]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
            for line in lines
        )


def table(
    rows: Mapping[str, Mapping[str, object]],
    first: str = "",
    form: str | Callable[[object], str] = "{:.3g}",
) -> Table:
    """A table with a row for each name.

    Parameters
    ----------
    rows : dict of str to dict
        For each row its cells by column; an absent cell stays empty.
    first : str
        Heading of the column of names.
    form : str or callable
        How a float is written; everything else as ``str`` has it.

    Examples
    --------
    >>> table({"sum": {"β": 1.0, "live": 14}, "mean": {"β": 784.0, "live": 0}}, "loss")
    loss  β    live
    sum   1    14
    mean  784  0
    """
    columns = list(dict.fromkeys(column for cells in rows.values() for column in cells))
    write = form if callable(form) else form.format

    def written(cell: object) -> str:
        return write(cell) if isinstance(cell, float) else str(cell)

    return Table(
        (first, *columns),
        tuple(
            (str(name), *(written(cells.get(column, "")) for column in columns))
            for name, cells in rows.items()
        ),
    )
