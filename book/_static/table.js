// Adds a search field, a choice, and a button in each heading to every table that has data-choice,
// the number of the column to choose from. Without this script such a table simply stays as it is.
"use strict";
document.addEventListener("DOMContentLoaded", () => {
  const make = (tag, set) => Object.assign(document.createElement(tag), set);
  for (const table of document.querySelectorAll("table[data-choice]")) {
    const body = table.tBodies[0], rows = [...body.rows], heads = [...table.tHead.rows[0].cells];
    const at = Number(table.dataset.choice);
    const search = make("input", {type: "search", id: `${table.id}-search`});
    const choice = make("select", {id: `${table.id}-choice`});
    const count = make("span", {role: "status"});
    choice.append(make("option", {value: "", textContent: "all"}));
    for (const text of [...new Set(rows.map(row => row.cells[at].textContent))].sort()) {
      choice.append(make("option", {value: text, textContent: text}));
    }
    const label = (of, text) => make("label", {htmlFor: of.id, textContent: `${text} `});
    const bar = make("div", {className: "table-controls"});
    bar.append(label(search, "Search"), search, " ", label(choice, heads[at].textContent), choice,
      " ", count);
    table.parentElement.before(bar);

    const show = () => {
      const words = search.value.toLowerCase().split(/\s+/);
      for (const row of rows) {
        const text = [...row.cells].map(cell => cell.textContent).join(" ").toLowerCase();
        row.hidden = !(words.every(word => text.includes(word)) &&
          (!choice.value || row.cells[at].textContent === choice.value));
      }
      count.textContent = `${rows.filter(row => !row.hidden).length} of ${rows.length} shown`;
    };
    search.addEventListener("input", show);
    choice.addEventListener("change", show);

    heads.forEach((head, column) => {
      const button = make("button", {type: "button", textContent: head.textContent});
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        heads.forEach(other => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const key = row => row.cells[column].dataset.value
          ?? row.cells[column].textContent.toLowerCase();
        body.append(...rows.sort((a, b) => {
          const [p, q] = [key(a), key(b)], numbers = [Number(p), Number(q)];
          if (p === "" || q === "") return (p === "") - (q === ""); // what has no value comes last
          const order = numbers.some(isNaN) ? p.localeCompare(q) : numbers[0] - numbers[1];
          return down ? -order : order;
        }));
      });
    });
    show();
  }
});
