// Columns that sort, and what is known of a number beside it. Without this script the page lacks only these two.

// --- Sorting: ascending, descending, then as the run has it. The pool stays on top, what has no number at the end.

const NEXT = { none: "ascending", ascending: "descending", descending: "none" };
const collator = new Intl.Collator("en", { numeric: true });

const known = (row, column) => row.cells[column]?.dataset.value !== undefined;

/** The pool stays on top; the lines over the leagues mean nothing in another order, and go meanwhile. */
const moves = (row) => !row.classList.contains("reference") && !row.classList.contains("league");

function compare(column, words, sign) {
  return (a, b) => {
    if (!known(a, column) || !known(b, column)) return known(b, column) - known(a, column);
    const [first, second] = [a, b].map((row) => row.cells[column].dataset.value);
    return sign * (words ? collator.compare(first, second) : Number(first) - Number(second));
  };
}

function sort(table, rows, column, order) {
  for (const head of table.tHead.rows[0].cells) head.removeAttribute("aria-sort");
  const head = table.tHead.rows[0].cells[column];
  if (order !== "none") head.setAttribute("aria-sort", order);
  const fixed = rows.filter((row) => row.classList.contains("reference"));
  const moving = rows.filter(moves);
  const sign = order === "ascending" ? 1 : -1;
  if (order !== "none") moving.sort(compare(column, head.classList.contains("label"), sign));
  table.tBodies[0].append(...(order === "none" ? rows : [...fixed, ...moving]));
  table.classList.toggle("sorted", order !== "none");
}

function makeSortable(table) {
  const rows = [...table.tBodies[0].rows];
  const moving = rows.filter(moves);
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    if (moving.filter((row) => known(row, column)).length < 2) return;
    const button = document.createElement("button");
    button.type = "button";
    button.className = "sort";
    button.setAttribute("aria-label", `Sort by ${head.dataset.name}`);
    button.addEventListener("click", () => sort(table, rows, column, NEXT[head.ariaSort ?? "none"]));
    (head.querySelector("span") ?? head).append(button);
  });
}

// --- Hints: one tooltip for all cells, shown for the cell under the pointer or in focus.

const tip = document.getElementById("tip");
let shown = null;
let leaving = 0;

function line(list, name, text) {
  if (!text) return;
  const [term, told] = [document.createElement("dt"), document.createElement("dd")];
  term.textContent = name;
  told.textContent = text;
  list.append(term, told);
}

const nameOf = (row) => row.cells[0].dataset.value;

/** What the table has of the same number for the pool and for retraining, where these are other rows. */
function compared(cell) {
  const row = cell.parentElement;
  return [...row.parentElement.rows]
    .filter((other) => other !== row && other.dataset.role && other.dataset.request === row.dataset.request)
    .map((other) => [nameOf(other), other.cells[cell.cellIndex]?.dataset.tip]);
}

function fill(cell) {
  const head = cell.closest("table").tHead.rows[0].cells[cell.cellIndex];
  const [title, list] = [document.createElement("p"), document.createElement("dl")];
  const { request } = cell.parentElement.dataset;
  title.textContent = head.dataset.name + (request ? `, request ${request}` : "");
  line(list, nameOf(cell.parentElement), cell.dataset.tip);
  if (!cell.classList.contains("label")) for (const [name, text] of compared(cell)) line(list, name, text);
  line(list, "good", head.dataset.good);
  tip.replaceChildren(title, list);
}

/** Beside the cell, inside the window; away with a cell that is scrolled out of it. */
function place(cell) {
  tip.hidden = false;
  const [at, own, gap] = [cell.getBoundingClientRect(), tip.getBoundingClientRect(), 6];
  const below = at.bottom + gap + own.height <= innerHeight;
  const left = Math.min(at.right - own.width, innerWidth - own.width - gap);
  tip.style.top = `${Math.max(gap, below ? at.bottom + gap : at.top - gap - own.height)}px`;
  tip.style.left = `${Math.max(gap, left)}px`;
  tip.hidden = at.bottom < 0 || at.top > innerHeight;
}

function show(cell) {
  clearTimeout(leaving);
  if (cell === shown) return;
  hide();
  shown = cell;
  fill(cell);
  cell.setAttribute("aria-describedby", "tip");
  place(cell);
}

function hide() {
  clearTimeout(leaving);
  shown?.removeAttribute("aria-describedby");
  shown = null;
  tip.hidden = true;
}

const told = (target) => (target instanceof Element ? target.closest("td[data-tip]") : null);

// The pointer may go to the tooltip without losing it; what has the focus keeps its own.
document.addEventListener("pointerover", (event) => {
  const cell = told(event.target);
  if (cell) show(cell);
  else if (tip.contains(event.target)) clearTimeout(leaving);
  else if (shown && shown !== document.activeElement) leaving = setTimeout(hide, 120);
});
document.addEventListener("focusin", (event) => (told(event.target) ? show(told(event.target)) : hide()));
document.addEventListener("focusout", hide);
document.addEventListener("scroll", () => shown && place(shown), { capture: true, passive: true });
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") hide();
});

// --- One cell of a table is a stop of the tab key; arrows go on from there.

const STEPS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };

function neighbor(cell, [down, right]) {
  const rows = [...cell.closest("tbody").rows];
  let [row, column] = [rows.indexOf(cell.parentElement) + down, cell.cellIndex + right];
  for (; rows[row]?.cells[column]; row += down, column += right) {
    if (rows[row].cells[column].dataset.tip) return rows[row].cells[column];
  }
  return null;
}

function makeWalkable(table) {
  const cells = [...table.querySelectorAll("td[data-tip]")];
  cells.forEach((cell, number) => (cell.tabIndex = number ? -1 : 0));
  table.addEventListener("focusin", (event) => {
    if (!told(event.target)) return;
    for (const cell of cells) cell.tabIndex = cell === event.target ? 0 : -1;
  });
  table.addEventListener("keydown", (event) => {
    const next = event.key in STEPS && told(event.target) ? neighbor(event.target, STEPS[event.key]) : null;
    if (!next) return;
    event.preventDefault();
    next.focus();
  });
}

for (const table of document.querySelectorAll(".scroll > table")) {
  makeSortable(table);
  makeWalkable(table);
}
for (const note of document.querySelectorAll("[data-scripted]")) note.hidden = false;
