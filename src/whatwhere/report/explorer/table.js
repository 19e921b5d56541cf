// The table of neurons: only the rows in sight exist, so that ten thousand are as fluid as ten.

const ROW = 30, HEAD = 45;
const table = { order: [], active: 0, key: null, descending: true, body: null, head: null, columns: [], template: "" };

function setUpTable() {
  const grid = byId("table");
  grid.addEventListener("scroll", drawRows);
  grid.addEventListener("keydown", keyInTable);
  grid.addEventListener("click", (event) => {
    const row = event.target.closest("[data-place]");
    if (!row) return;
    table.active = Number(row.dataset.place);
    choose(table.order[table.active]);
  });
  byId("search").addEventListener("input", () => { fillOrder(); grid.scrollTop = 0; drawRows(); });
  byId("search").addEventListener("keydown", (event) => {
    if (event.key !== "Enter" && event.key !== "ArrowDown") return;
    event.preventDefault();
    if (event.key === "Enter" && table.order.length) { table.active = 0; choose(table.order[0]); }
    grid.focus();
    drawRows();
  });
  byId("previous").addEventListener("click", () => stepInTable(-1));
  byId("next").addEventListener("click", () => stepInTable(1));
  on("run", buildTable);
  on("neuron", showChosen);
}

function buildTable() {
  const run = state.run, grid = byId("table");
  table.columns = columnsOf(run);
  table.template = ["118px", ...table.columns.map((column) => (column.isText ? "112px" : "116px"))].join(" ");
  if (!table.columns.some((column) => column.key === table.key)) {
    table.key = mainScore(run);
    table.descending = true;
  }
  table.head = make("div", { role: "row", "aria-rowindex": "1" }, headerCell("name", "Neuron", true),
    ...table.columns.map((column) => headerCell(column.key, column.label, column.isText)));
  table.head.style.gridTemplateColumns = table.template;
  table.body = make("div", { class: "body", role: "rowgroup" });
  grid.replaceChildren(make("div", { role: "rowgroup", class: "head" }, table.head), table.body);
  grid.setAttribute("aria-colcount", String(table.columns.length + 1));
  fillOrder();
  showChosen();
}

function headerCell(key, label, isText) {
  const button = make("button", { type: "button", text: label, tabindex: "-1" });
  button.addEventListener("click", () => sortBy(key, isText));
  button.tabIndex = 0;
  const cell = make("div", { role: "columnheader", class: isText ? "text" : "", "data-key": key, "aria-sort": "none" }, button);
  return cell;
}

function sortBy(key, isText) {
  table.descending = table.key === key ? !table.descending : !isText;
  table.key = key;
  fillOrder();
  table.active = 0;
  byId("table").scrollTop = 0;
  drawRows();
}

// Which neurons are listed, in which order; what has no value comes last either way.
function fillOrder() {
  const run = state.run, n = run.neurons.length, keep = matcher(byId("search").value);
  const order = [];
  for (let i = 0; i < n; i++) if (keep(i)) order.push(i);
  const column = table.columns.find((one) => one.key === table.key), way = table.descending ? -1 : 1;
  if (table.key === "name") {
    const ranks = nameRanks(run);
    order.sort((a, b) => way * (ranks[a] - ranks[b]));
  } else if (column && column.isText) {
    order.sort((a, b) => way * (column.index[a] - column.index[b]) || a - b);
  } else if (column) {
    const value = (i) => (Number.isFinite(column.values[i]) ? way * column.values[i] : Infinity);
    order.sort((a, b) => { const [x, y] = [value(a), value(b)]; return x === y ? a - b : x < y ? -1 : 1; });
  }
  table.order = order;
  for (const cell of table.head.children) {
    const sorted = cell.dataset.key === table.key;
    cell.setAttribute("aria-sort", sorted ? (table.descending ? "descending" : "ascending") : "none");
  }
  byId("table").setAttribute("aria-rowcount", String(order.length + 1));
  byId("found").textContent = order.length === n ? counted(n, "neuron") : `${order.length.toLocaleString("en")} of ${counted(n, "neuron")}`;
  table.body.style.height = `${Math.max(60, ROW * order.length)}px`;
  table.active = Math.max(0, order.indexOf(state.neuron));
}

function nameRanks(run) {
  if (!run.ranks) {
    const compare = new Intl.Collator("en", { numeric: true }).compare;
    const sorted = run.neurons.map((_, i) => i).sort((a, b) => compare(run.neurons[a], run.neurons[b]));
    run.ranks = new Uint32Array(sorted.length);
    sorted.forEach((i, rank) => { run.ranks[i] = rank; });
  }
  return run.ranks;
}

// "correlation > 0.5" compares a column's numbers; anything else is looked for in names and kinds.
function matcher(text) {
  const wanted = text.trim().toLowerCase();
  if (!wanted) return () => true;
  const found = wanted.match(/^(.+?)\s*(<=|>=|<|>)\s*([-−]?[\d.]+)$/);
  const column = found && table.columns.find((one) => !one.isText && one.label.toLowerCase().startsWith(found[1]));
  if (column) {
    const limit = Number(found[3].replace("−", "-")), sign = found[2];
    const holds = { "<": (v) => v < limit, ">": (v) => v > limit, "<=": (v) => v <= limit, ">=": (v) => v >= limit }[sign];
    return (i) => holds(column.values[i]);
  }
  const texts = table.columns.filter((one) => one.isText);
  return (i) => state.run.neurons[i].toLowerCase().includes(wanted)
    || texts.some((one) => one.names[one.index[i]].toLowerCase().includes(wanted));
}

function drawRows() {
  const grid = byId("table"), first = Math.max(0, Math.floor((grid.scrollTop - HEAD) / ROW) - 2);
  const last = Math.min(table.order.length, first + Math.ceil(grid.clientHeight / ROW) + 6);
  const rows = [];
  for (let place = first; place < last; place++) rows.push(rowOf(place));
  if (!rows.length) rows.push(make("p", { class: "none", text: "No neuron matches." }));
  table.body.replaceChildren(...rows);
  const active = table.order.length && table.active >= first && table.active < last;
  if (active) grid.setAttribute("aria-activedescendant", `row-${table.active}`);
  else grid.removeAttribute("aria-activedescendant");
}

function rowOf(place) {
  const i = table.order[place], name = state.run.neurons[i];
  const cells = [make("div", { role: "gridcell", class: "text", text: name, title: name })];
  for (const column of table.columns) {
    cells.push(make("div", { role: "gridcell", class: column.isText ? "text" : "", text: textOf(column, i) }));
  }
  const row = make("div", {
    role: "row", id: `row-${place}`, "data-place": place, "aria-rowindex": place + 2,
    "aria-selected": String(i === state.neuron), class: place === table.active ? "active" : "",
  }, ...cells);
  row.style.top = `${ROW * place}px`;
  row.style.gridTemplateColumns = table.template;
  return row;
}

function keyInTable(event) {
  if (event.target !== byId("table")) return;
  const page_ = Math.max(1, Math.floor((byId("table").clientHeight - HEAD) / ROW) - 1), last = table.order.length - 1;
  const moves = { ArrowDown: 1, ArrowUp: -1, PageDown: page_, PageUp: -page_, Home: -Infinity, End: Infinity };
  if (event.key === "Enter" || event.key === " ") {
    event.preventDefault();
    if (last >= 0) choose(table.order[table.active]);
  } else if (event.key in moves) {
    event.preventDefault();
    table.active = Math.max(0, Math.min(last, table.active + moves[event.key]));
    scrollToRow(table.active);
    drawRows();
    if (last >= 0) byId("live").textContent = saidOf(state.run, table.order[table.active]);
  }
}

function stepInTable(step) {
  const place = table.order.indexOf(state.neuron);
  const next = table.order[place < 0 ? 0 : place + step];
  if (next !== undefined) choose(next);
}

function scrollToRow(place) {
  const grid = byId("table"), top = ROW * place, room = grid.clientHeight - HEAD - ROW;
  if (top < grid.scrollTop) grid.scrollTop = top;
  else if (top > grid.scrollTop + room) grid.scrollTop = top - room;
}

function showChosen() {
  const place = table.order.indexOf(state.neuron);
  if (place >= 0) {
    table.active = place;
    scrollToRow(place);
  }
  byId("previous").disabled = place === 0;
  byId("next").disabled = place === table.order.length - 1;
  drawRows();
}
