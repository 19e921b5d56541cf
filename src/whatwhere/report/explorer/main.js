// Runs beside each other, and the start.

function setUpComparison() {
  const runs = page.runs;
  if (runs.length < 2) return;
  runs.forEach((run, number) => {
    const button = make("button", { type: "button", text: run.name, "data-run": number, "aria-pressed": "false" });
    button.addEventListener("click", () => chooseRun(run));
    byId("runs").append(button);
  });
  const scores = Object.keys(page.scoreLabels).filter((name) => page.scoreLabels[name].compared && runs.filter((run) => name in run.scores).length > 1);
  if (!scores.length) return;
  byId("comparison").hidden = false;
  for (const [id, names, value] of [["compare-x", runs.map((run) => run.name), 1], ["compare-y", runs.map((run) => run.name), 0]]) {
    byId(id).replaceChildren(...names.map((name, number) => make("option", { value: number, text: name })));
    byId(id).value = value;
  }
  byId("compare-score").replaceChildren(...scores.map((name) => make("option", { value: name, text: page.scoreLabels[name].label })));
  byId("compare-score").value = scores.includes("correlation") ? "correlation" : scores[0];
  const part = figureOf("");
  part.heading.remove();
  part.canvas.addEventListener("click", (event) => chooseInComparison(part.canvas, event));
  part.canvas.style.cursor = "crosshair";
  byId("comparison-figure").append(part.figure);
  const draw = () => { drawComparison(part); fillTables(scores); };
  for (const id of ["compare-x", "compare-y", "compare-score"]) byId(id).addEventListener("change", draw);
  on("neuron", () => drawComparison(part));
  fillTables(scores);
}

function drawComparison(part) {
  const [across, up] = ["compare-x", "compare-y"].map((id) => page.runs[byId(id).value]), score = byId("compare-score").value;
  const width = widthOf(part.figure, 520), height = Math.min(460, width), context = prepare(part.canvas, widthOf(part.figure), height);
  const places = new Map(up.neurons.map((name, i) => [name, i]));
  const [xs, ys] = [unpack(across.scores[score]), unpack(up.scores[score])];
  const points = [];
  if (xs && ys) across.neurons.forEach((name, i) => {
    const j = places.get(name);
    if (j !== undefined && Number.isFinite(xs[i]) && Number.isFinite(ys[j])) points.push({ name, x: xs[i], y: ys[j] });
  });
  part.canvas.points = null;
  if (!points.length) {
    part.note.textContent = "These runs have no neuron with this score in common.";
    part.canvas.setAttribute("aria-label", part.note.textContent);
    return;
  }
  const all = Float32Array.from(points.flatMap(({ x, y }) => [x, y])).sort();
  const [low, high] = [quantile(all, 0.001), quantile(all, 0.999)], room = 0.04 * (high - low) || 0.5, range = [low - room, high + room];
  const { toX, toY } = axes(context, width, height, { x: range, y: range, xName: across.name, yName: up.name });
  context.strokeStyle = "#87929d";
  context.setLineDash([5, 4]);
  line(context, toX(range[0]), toY(range[0]), toX(range[1]), toY(range[1]));
  context.setLineDash([]);
  const clip = (value) => Math.max(range[0], Math.min(range[1], value));
  context.fillStyle = points.length > 800 ? "rgba(0,103,163,.35)" : "rgba(0,103,163,.7)";
  for (const point of points) { dot(context, toX(clip(point.x)), toY(clip(point.y)), points.length > 800 ? 2 : 3.4); context.fill(); }
  const chosen = points.find((point) => point.name === state.run.neurons[state.neuron]);
  if (chosen) {
    context.strokeStyle = INK;
    context.lineWidth = 2;
    dot(context, toX(clip(chosen.x)), toY(clip(chosen.y)), 7);
    context.stroke();
  }
  const above = points.filter(({ x, y }) => y > x).length;
  part.canvas.points = { points, toX: (value) => toX(clip(value)), toY: (value) => toY(clip(value)) };
  part.note.textContent = `${page.scoreLabels[score].label} of ${counted(points.length, "neuron")}: ${above.toLocaleString("en")} above the dashed line, better in ${up.name}.`
    + (chosen ? ` Ring: neuron ${chosen.name}, ${number(chosen.x)} across and ${number(chosen.y)} up.` : "");
  part.canvas.setAttribute("aria-label", `${part.note.textContent} Neurons are chosen here by mouse; without one by the`
    + " table of neurons. Means and differences of the runs are in the tables that follow.");
}

function chooseInComparison(canvas, event) {
  if (!canvas.points) return;
  const frame = canvas.getBoundingClientRect(), { points, toX, toY } = canvas.points;
  const x = event.clientX - frame.left, y = event.clientY - frame.top;
  const distance = (point) => (toX(point.x) - x) ** 2 + (toY(point.y) - y) ** 2;
  const nearest = points.reduce((a, b) => (distance(b) < distance(a) ? b : a));
  const place = state.run.neurons.indexOf(nearest.name);
  if (place >= 0) choose(place);
}

function fillTables(scores) {
  const chosen = byId("compare-score").value, main = ["correlation", "fev", "feve", "normalized_correlation"];
  const shown = [...new Set([chosen, ...scores.filter((name) => main.includes(name))])].slice(0, 4);
  const cell = (entry) => {
    if (!entry || entry.mean === null) return make("td", { text: "–" });
    return make("td", {}, make("b", { text: number(entry.mean) }), make("br"), make("span", { class: "note", text: intervalText(entry) }));
  };
  const header = (first, names) => make("thead", {}, make("tr", {}, make("th", { scope: "col", text: first }), ...names.map((name) => make("th", { scope: "col", text: name }))));
  const labels = shown.map((name) => page.scoreLabels[name].label);
  const means = make("table", {}, header("run", labels),
    make("tbody", {}, ...page.runs.map((run) => make("tr", {}, make("td", { text: run.name }), ...shown.map((name) => cell(run.summary[name]))))));
  const pairs = [...new Set(page.differences.map((one) => `${one.first} − ${one.minus}`))];
  const of = (pair, name) => page.differences.find((one) => `${one.first} − ${one.minus}` === pair && one.score === name);
  const differences = make("table", {}, header("pair", labels),
    make("tbody", {}, ...pairs.map((pair) => make("tr", {}, make("td", { text: pair }), ...shown.map((name) => cell(of(pair, name)))))));
  const titled = (title, table_) => [make("h3", { text: title }),
    make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": title }, table_)];
  byId("comparison-tables").replaceChildren(...titled("Mean over neurons, and its 95 % interval", means),
    ...titled("Differences, paired over the neurons that both have", differences));
}

// ------------------------------------------------------------------------------------------------------ the start

function setUpCopy() {
  byId("copy").addEventListener("click", async () => {
    const button = byId("copy");
    try {
      await navigator.clipboard.writeText(state.run.command);
    } catch {  // pages from a disk may not be allowed to: select it, and copy as keys would
      const range = document.createRange();
      range.selectNodeContents(byId("command"));
      getSelection().removeAllRanges();
      getSelection().addRange(range);
      document.execCommand("copy");
    }
    button.textContent = "Copied";
    byId("live").textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
}

// Drawn anew where the page's width changes: of the window, or because a scrollbar came.
function redrawWithWidth() {
  let waiting = 0, drawn = `${document.body.clientWidth} ${devicePixelRatio}`;
  const later = () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => {
      const now = `${document.body.clientWidth} ${devicePixelRatio}`;
      if (now === drawn) return;
      drawn = now;
      tell("run");
      tell("neuron");
    }, 120);
  };
  new ResizeObserver(later).observe(document.body);
  window.addEventListener("resize", later);
}

function start() {
  facts(byId("recording"), page.recording);
  for (const setUp of [setUpField, setUpTable, setUpPanel, setUpOverview, setUpComparison, setUpCopy]) setUp();
  state.neuron = bestOf(state.run);
  redrawWithWidth();
  chooseRun(state.run);
}

start();
