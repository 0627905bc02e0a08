"use strict";
// Sorting and copying are extras: without this script the page shows everything it knows.
for (const table of document.querySelectorAll("table.layers")) {
  const body = table.tBodies[0];
  const number = (row, index) => {
    const value = row.cells[index].dataset.value;
    return value === undefined || value === "" ? null : Number(value);
  };
  Array.from(table.tHead.rows[0].cells).forEach((head, index) => {
    if (!Array.from(body.rows).some((row) => number(row, index) !== null)) return;
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const upwards = head.getAttribute("aria-sort") !== "ascending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", upwards ? "ascending" : "descending");
      const rows = Array.from(body.rows).sort((a, b) => {
        const [x, y] = [number(a, index), number(b, index)];
        if (x === null || y === null) return (x === null) - (y === null);
        return upwards ? x - y : y - x;
      });
      body.append(...rows);
    });
  });
}
const recipe = document.getElementById("recipe");
if (recipe && navigator.clipboard) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "copy";
  button.textContent = "Copy";
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(recipe.textContent);
    button.textContent = "Copied";
  });
  recipe.before(button);
}
