"use strict";
(() => {
  const tables = [...document.querySelectorAll("table[data-grid]")];
  const filters = [...document.querySelectorAll("[data-filter]")];
  const count = document.getElementById("count");

  function filter() {
    const wanted = filters.map((input) => [input.dataset.filter, input.value.trim().toLowerCase()]);
    let shown = 0;
    let all = 0;
    for (const table of tables) {
      const before = shown;
      for (const row of table.tBodies[0].rows) {
        const text = row.textContent.toLowerCase();
        const fits = ([name, value]) => (name === "text" ? value.split(/\s+/).every((word) => text.includes(word)) : row.dataset[name] === value);
        row.hidden = !wanted.every((pair) => pair[1] === "" || fits(pair));
        shown += row.hidden ? 0 : 1;
        all += 1;
      }
      const box = table.closest("details");
      box.hidden = shown === before;
      if (wanted.some((pair) => pair[1] !== "") && !box.hidden) box.open = true;
    }
    count.textContent = `${shown} of ${all} cells`;
  }

  function sort(button) {
    const head = button.closest("th");
    const table = head.closest("table");
    const rising = head.getAttribute("aria-sort") !== "ascending";
    const column = [...head.parentElement.children].indexOf(head);
    const key = (row) => {
      const cell = row.cells[column];
      // A cell that was not measured has one wide field with its reason in place of its numbers.
      if (!cell || cell.classList.contains("why")) return null;
      if (cell.dataset.v !== undefined) return cell.dataset.v === "" ? null : Number(cell.dataset.v);
      return cell.textContent.trim();
    };
    const compare = (a, b) => {
      if (a.key === null || b.key === null) return (a.key === null) - (b.key === null);
      const order = typeof a.key === "number" ? a.key - b.key : a.key.localeCompare(b.key);
      return rising ? order : -order;
    };
    const rows = [...table.tBodies[0].rows].map((row) => ({ row, key: key(row) }));
    for (const other of head.parentElement.children) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", rising ? "ascending" : "descending");
    for (const { row } of rows.sort(compare)) {
      row.classList.remove("begins");
      table.tBodies[0].append(row);
    }
  }

  for (const input of filters) input.addEventListener("input", filter);
  for (const table of tables) {
    for (const head of table.tHead.rows[0].cells) {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      button.addEventListener("click", () => sort(button));
      head.append(button);
    }
  }
  if (tables.length > 0) filter();
})();
