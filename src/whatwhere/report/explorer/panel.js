// The panel of the chosen neuron: its figures are made once for a run, and drawn anew for each neuron.

const panel = { parts: [] };

function setUpPanel() {
  on("run", buildPanel);
  on("neuron", () => { POINT.at = -1; drawPanel(); });
  on("pictures", drawPanel);
}

function buildPanel() {
  const run = state.run;
  panel.parts = [];
  const room = byId("figures");
  room.replaceChildren();
  const add = (title, kind, draw, wide) => {
    const part = { ...figureOf(title, kind), draw, title, wide };
    panel.parts.push(part);
    room.append(part.figure);
    return part;
  };
  const pieces = [["Mask", run.masks, drawMask], ["Location posterior", run.masks && run.masks.posterior, drawPosterior],
    [sentence(run.fieldName), run.field, drawFieldOf], ["Most exciting image", run.exciting, drawExciting]]
    .filter(([, there]) => there);
  for (const [title, , draw] of pieces) add(title, ["", "", "third", "quarter"][pieces.length - 1], draw);
  if (run.held) setUpScatter(add("Predicted against observed", run.barcode || pieces.length === 1 ? "" : "full", drawScatter));
  if (run.barcode) {
    const part = add("Barcode", run.held ? "" : "full", drawBarcode);
    if (run.kernelsAreFeatures) addRow(part, "Kernels of the features it weighs most", (holder, i) => drawFeatures(holder, i));
  }
  if (run.held && run.held.thumbnails) {
    const n = run.held.pictured.length, among = n < run.held.nImages ? `, of the ${n.toLocaleString("en")} with a picture` : "";
    const rows = [["observed", "Test images it responded to most"], ["predicted", "Test images predicted to excite it most"]].map(([which, title]) => {
      const holder = make("div", { class: "pictures" });
      panel.parts.push({ holder, drawRow: (one, i) => drawImages(one, i, which) });
      return [make("h3", { text: title + among }), holder];
    });
    const together = run.barcode && pieces.length === 1;  // five figures would leave a hole
    room.append(...(together ? [rows.flat()] : rows).map((parts) => make("figure", {}, ...parts)));
  }
}

// A row of small pictures within a figure.
function addRow(part, title, drawRow) {
  const holder = make("div", { class: "kernels" });
  part.figure.append(make("p", { class: "note", text: title }), holder);
  panel.parts.push({ holder, drawRow });
}

function drawPanel() {
  const run = state.run, i = state.neuron;
  byId("neuron-title").textContent = `Neuron ${run.neurons[i]}`;
  byId("neuron-facts").textContent = factsOf(run, i);
  byId("neuron-scores").replaceChildren(...scoreList(run, i));
  for (const part of panel.parts) {
    if (part.drawRow) { part.drawRow(part.holder, i); continue; }
    const said = part.draw(part.canvas, i);
    part.note.textContent = said;
    part.canvas.setAttribute("aria-label", `${part.title} of neuron ${run.neurons[i]}. ${said}`);
  }
}

function factsOf(run, i) {
  const words = columnsOf(run).filter((column) => column.isText).map((column) => `${column.label} ${textOf(column, i)}`);
  const locations = unpack(run.locations);
  if (locations) words.push(placeText(locations, i));
  return sentence(words.join(" · "));
}

// Each score with a bar: how many of the neurons it is above.
function scoreList(run, i) {
  return columnsOf(run).filter((column) => column.isScore).map((column) => {
    const value = column.values[i], sorted = sortedValues(column);
    const entry = make("div", {}, make("dt", { text: column.label, title: page.scoreLabels[column.key].meaning }),
      make("dd", { text: textOf(column, i), "data-score": column.key }));
    if (Number.isFinite(value) && sorted.length > 1) {
      const share = rankOf(sorted, value), bar = make("i");
      bar.style.width = `${(100 * share).toFixed(0)}%`;
      const text = `Above ${(100 * share).toFixed(0)} % of the neurons`;
      entry.lastChild.append(make("span", { class: "rank", role: "img", "aria-label": text, title: text }, bar));
    }
    return entry;
  });
}

// Pointing at a dot, or the arrow keys, tell which test image it is.
function setUpScatter(part) {
  const { canvas, figure } = part;
  canvas.tabIndex = 0;
  const hint = make("div", { class: "hint" });
  hint.hidden = true;
  figure.style.position = "relative";
  figure.append(hint);
  const show = (k) => {
    POINT.at = k;
    part.note.textContent = drawScatter(canvas, state.neuron);
    hint.hidden = k < 0;
    if (k >= 0) fillHint(hint, canvas, k);
  };
  canvas.addEventListener("pointermove", (event) => show(nearestPoint(canvas, event)));
  canvas.addEventListener("pointerleave", () => show(-1));
  canvas.addEventListener("blur", () => show(-1));
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const { found } = canvas.points;
    const order = Array.from(found.observed.keys()).sort((a, b) => found.observed[a] - found.observed[b]);
    const at = POINT.at < 0 ? (step > 0 ? 0 : found.n - 1) : order.indexOf(POINT.at) + step;
    show(order[Math.max(0, Math.min(found.n - 1, at))]);
    byId("live").textContent = hint.textContent;
  });
}

function nearestPoint(canvas, event) {
  const frame = canvas.getBoundingClientRect(), { toX, toY, found } = canvas.points;
  const x = event.clientX - frame.left, y = event.clientY - frame.top;
  let nearest = -1, least = 18 ** 2;
  for (let k = 0; k < found.n; k++) {
    const distance = (toX(found.observed[k]) - x) ** 2 + (toY(found.predicted[k]) - y) ** 2;
    if (distance < least) { least = distance; nearest = k; }
  }
  return nearest;
}

function fillHint(hint, canvas, k) {
  const { toX, toY, found } = canvas.points, held = state.run.held;
  const short = (value) => value.toPrecision(3).replace("-", "−");
  const repeats = held.repeats[k] > 1 ? ` (mean of ${held.repeats[k]})` : "";
  hint.replaceChildren(`Image ${held.rows[k]}: observed ${short(found.observed[k])}${repeats}, predicted ${short(found.predicted[k])}`);
  const picture = held.pictured.indexOf(k), cell = picture >= 0 ? cellOf(held.thumbnails, picture) : null;
  if (cell) {
    const small = make("canvas", { class: "pixels", "aria-hidden": "true" }), source = plainCanvas(cell);
    small.width = source.width;
    small.height = source.height;
    small.getContext("2d").drawImage(source, 0, 0);
    small.style.width = `${Math.min(72, (72 * source.width) / source.height)}px`;
    small.style.margin = "4px 0";
    hint.append(small);
  }
  hint.style.left = `${Math.max(0, Math.min(toX(found.observed[k]) + 12, canvas.clientWidth - hint.offsetWidth))}px`;
  hint.style.top = `${canvas.offsetTop + toY(found.predicted[k]) + 12}px`;
}
