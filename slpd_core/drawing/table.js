// Makes tables of class "explorable" sortable by their headers, searchable, and filterable by columns marked data-filter.
"use strict";
for (const table of document.querySelectorAll("table.explorable")) {
  const heads = [...table.tHead.rows[0].cells], rows = [...table.tBodies[0].rows], filters = [];
  const make = (tag, settings) => Object.assign(document.createElement(tag), settings);
  const read = (row, i) => (row.cells[i].dataset.value ?? row.cells[i].textContent).trim().replace(/^–$/, "");
  const number = (text) => Number(text.replace(/[\s,%]/g, "").replace("−", "-"));
  const controls = make("div", { className: "controls" }), shown = make("output");
  const search = make("input", { type: "search", placeholder: "Search", ariaLabel: "Search", oninput: show });

  function show() {
    const words = search.value.toLowerCase().split(/\s+/);
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word))
        || filters.some(([i, select]) => select.value && select.value !== "=" + read(row, i));
    }
    shown.value = `${rows.filter((row) => !row.hidden).length} of ${rows.length}`;
  }

  function sort(i) {
    const falling = heads[i].ariaSort === "ascending", values = new Map(rows.map((row) => [row, read(row, i)]));
    const numeric = [...values.values()].every((value) => !isNaN(number(value)));
    const compare = (a, b) => (numeric ? number(a) - number(b) : a.localeCompare(b, undefined, { numeric: true }));
    heads.forEach((head) => head.removeAttribute("aria-sort"));
    heads[i].ariaSort = falling ? "descending" : "ascending";
    rows.sort((one, other) => {
      const a = values.get(one), b = values.get(other);
      return !a - !b || (falling ? compare(b, a) : compare(a, b));
    });
    table.tBodies[0].append(...rows);
  }

  controls.append(search);
  heads.forEach((head, i) => {
    const title = head.textContent.trim();
    if (!title) return;
    if ("filter" in head.dataset) {
      const select = make("select", { ariaLabel: title, onchange: show });
      select.append(new Option(`${title}: all`, ""));
      [...new Set(rows.map((row) => read(row, i)))].sort().forEach((v) => select.append(new Option(v || "–", "=" + v)));
      filters.push([i, select]);
      controls.append(select);
    }
    const button = make("button", { type: "button", onclick: () => sort(i) });
    button.append(...head.childNodes);
    head.append(button);
  });
  controls.append(shown);
  show();
  (table.closest(".scroll") ?? table).before(controls);
}
