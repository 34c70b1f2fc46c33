"""A table that a reader can sort and filter on the page, and that is a plain table elsewhere."""

import html
from collections.abc import Sequence
from dataclasses import dataclass, field

# Adds a search field, a choice, and a button in each heading to the table with the given id. It
# needs no kernel and no other host; where scripts do not run, the table simply stays as it is.
SCRIPT = """
(() => {
  const table = document.getElementById("ID");
  if (!table || table.dataset.ready) return;
  table.dataset.ready = "yes";
  const body = table.tBodies[0], rows = [...body.rows], heads = [...table.tHead.rows[0].cells];
  const make = (tag, set) => Object.assign(document.createElement(tag), set);
  const bar = make("div", {className: "table-controls"});
  const search = make("input", {type: "search", id: "ID-search"});
  const choice = make("select", {id: "ID-choice"});
  const count = make("span", {role: "status"});
  const at = Number(table.dataset.choice);
  choice.append(make("option", {value: "", textContent: "all"}));
  [...new Set(rows.map(r => r.cells[at].textContent))].sort().forEach(t =>
    choice.append(make("option", {value: t, textContent: t})));
  const label = (of, text) => make("label", {htmlFor: of.id, textContent: text + " "});
  bar.append(label(search, "Search"), search, " ", label(choice, heads[at].textContent), choice,
    " ", count);
  table.parentElement.before(bar);
  const show = () => {
    const words = search.value.toLowerCase().split(/\\s+/);
    let shown = 0;
    rows.forEach(r => {
      const text = [...r.cells].map(c => c.textContent).join(" ").toLowerCase();
      r.hidden = !(words.every(w => text.includes(w)) &&
        (!choice.value || r.cells[at].textContent === choice.value));
      shown += !r.hidden;
    });
    count.textContent = `${shown} of ${rows.length} shown`;
  };
  search.addEventListener("input", show);
  choice.addEventListener("change", show);
  heads.forEach((head, i) => {
    const button = make("button", {type: "button", textContent: head.textContent});
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach(h => h.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const key = r => r.cells[i].dataset.value ?? r.cells[i].textContent.toLowerCase();
      const compare = (a, b) => {
        const [p, q] = [key(a), key(b)], numbers = [Number(p), Number(q)];
        if (p === "" || q === "") return (p === "") - (q === "");  // what has no value comes last
        const order = numbers.some(isNaN) ? p.localeCompare(q) : numbers[0] - numbers[1];
        return down ? -order : order;
      };
      body.append(...rows.sort(compare));
    });
  });
  show();
})();
"""


@dataclass(frozen=True)
class Cell:
    """What a cell shows, what it is sorted by (default: what it shows), and a link."""

    text: str
    value: float | None = None
    link: str | None = None


@dataclass(frozen=True)
class Table:
    r"""Rows of text or ``Cell``\ s; a notebook shows it as HTML, print shows it as text.

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
            f"<script>{SCRIPT.replace('ID', self.name)}</script>"
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
