// What is of the whole run: its scores, what to know first, its population, its fit; runs beside each other.

function setUpOverview() {
  on("run", () => { showRun(); buildPopulation(); });
  on("neuron", drawHistogram);
  on("pictures", drawKernels);
}

function number(value, digits = 3) {
  return value === null || !Number.isFinite(value) ? "–" : value.toFixed(digits).replace("-", "−");
}

function intervalText({ low, high }, digits = 3) {
  return low === null || high === null ? "" : `${number(low, digits)} to ${number(high, digits)}`;
}

function facts(list, pairs) {
  list.replaceChildren(...pairs.map(([name, value]) => make("div", {}, make("dt", { text: name }), make("dd", { text: value }))));
}

function showRun() {
  const run = state.run;
  for (const button of byId("runs").children) button.setAttribute("aria-pressed", String(page.runs[button.dataset.run] === run));
  const main = ["correlation", "fev", "feve", "noise_ceiling"];
  const names = Object.keys(run.summary).filter((name) => run.summary[name].mean !== null);
  names.sort((a, b) => (main.indexOf(a) + 1 || 99) - (main.indexOf(b) + 1 || 99));
  byId("summary").replaceChildren(...names.slice(0, 6).map((name) => make("li", { class: main.includes(name) ? "" : "small" },
    make("span", { class: "what", text: page.scoreLabels[name].label, title: page.scoreLabels[name].meaning }),
    make("span", { class: "value", text: number(run.summary[name].mean) }),
    make("span", { class: "range", text: intervalText(run.summary[name]) }))));
  listInto("attention", "Know first", run.attention, "attention");
  listInto("absent", "Not shown", run.absent.map((text) => `${sentence(text)}.`), "note");
  byId("command").textContent = run.command;
  byId("command-note").textContent = run.commandNote;
  byId("command").parentElement.hidden = !run.command;
  facts(byId("run-facts"), run.facts);
  byId("settings").textContent = run.settings;
}

function listInto(id, title, items, kind) {
  const children = items.length ? [make("div", { class: kind }, make("h3", { text: title }),
    make("ul", {}, ...items.map((item) => make("li", { text: item }))))] : [];
  byId(id).replaceChildren(...children);
}

// ------------------------------------------------------------------------------------------------ the population

const population = { histogram: null, kernels: null, score: null };

function buildPopulation() {
  const run = state.run, room = byId("population-figures");
  room.replaceChildren();
  population.histogram = population.kernels = null;
  const scores = columnsOf(run).filter((column) => !column.isText && column.key !== "row" && column.key !== "column");
  if (scores.length) {
    const part = population.histogram = figureOf("Distribution over neurons");
    const select = make("select", { "aria-label": "Distribution of" }, ...scores.map((column) => make("option", { value: column.key, text: column.label })));
    if (!scores.some((column) => column.key === population.score)) population.score = mainScore(run) || scores[0].key;
    select.value = population.score;
    select.addEventListener("change", () => { population.score = select.value; drawHistogram(); });
    part.heading.append(select);
    room.append(part.figure);
  }
  if (run.history) {
    const part = figureOf("Course of the fit");
    room.append(part.figure);
    part.note.textContent = drawHistory(part.canvas, run.history);
    part.canvas.setAttribute("aria-label", `Course of the fit. ${part.note.textContent}`);
  }
  if (run.kernels) {
    const holder = make("div", { class: "kernels" });
    room.append(make("figure", { class: "full" }, make("h3", { text: "Kernels of the first layer" }), holder,
      make("figcaption", { text: `Below each its number, as in the arrays from 0. Each on a scale of its own: white is zero, red positive, blue negative.${run.kernels.channels > 1 ? ` Channels 0 to ${run.kernels.channels - 1} of each from left to right.` : ""}` })));
    population.kernels = holder;
    drawKernels();
  }
  byId("population").hidden = !room.children.length;
  drawHistogram();
}

function drawKernels() {
  const { kernels } = state.run;
  if (!population.kernels) return;
  population.kernels.replaceChildren(...Array.from({ length: kernels.n }, (_, k) => kernelFigure(k, String(k))).filter(Boolean));
}

function drawHistogram() {
  const part = population.histogram;
  if (!part) return;
  const column = columnsOf(state.run).find((one) => one.key === population.score), sorted = sortedValues(column);
  const width = widthOf(part.figure), height = 250, context = prepare(part.canvas, width, height);
  if (!sorted.length) { part.note.textContent = "No neuron has a value."; return; }
  const low = Math.max(sorted[0], quantile(sorted, 0.005)), high = Math.max(quantile(sorted, 0.995), low + 1e-9);
  const room = 0.02 * (high - low) || 0.5, n = Math.min(40, Math.max(8, Math.round(2 * Math.sqrt(sorted.length))));
  const bins = new Array(n).fill(0), from = low - room, to = high + room;
  let outside = 0;
  for (const value of sorted) {
    const bin = Math.floor((n * (value - from)) / (to - from));
    if (bin >= 0 && bin < n) bins[bin] += 1; else outside += 1;
  }
  const { toX, toY } = axes(context, width, height, {
    x: [from, to], y: [0, 1.06 * Math.max(...bins)], xName: column.label, yName: "neurons",
    yTicks: ticks(0, Math.max(...bins), 4).filter((one) => Number.isInteger(one)),
  });
  context.fillStyle = "#9fc3dc";
  bins.forEach((count, k) => {
    const [left, right] = [toX(from + (k / n) * (to - from)), toX(from + ((k + 1) / n) * (to - from))];
    context.fillRect(left + 0.5, toY(count), Math.max(1, right - left - 1), toY(0) - toY(count));
  });
  const mean = sorted.reduce((sum, value) => sum + value, 0) / sorted.length, value = column.values[state.neuron];
  marker(context, toX(mean), toY(0), 10, SOFT, true);
  if (Number.isFinite(value)) marker(context, Math.min(width - 12, Math.max(54, toX(value))), toY(0), 10, ACCENT, false);
  part.note.textContent = `${counted(sorted.length, "neuron")}, mean ${number(mean)} (dashed)${outside ? `, ${outside.toLocaleString("en")} beyond the axis` : ""}. `
    + `Line: neuron ${state.run.neurons[state.neuron]}, ${textOf(column, state.neuron)}.`;
  part.canvas.setAttribute("aria-label", `Distribution of ${column.label}. ${part.note.textContent}`);
}

function marker(context, x, bottom, top, colour, isDashed) {
  context.strokeStyle = colour;
  context.lineWidth = 2;
  context.setLineDash(isDashed ? [4, 3] : []);
  line(context, x, bottom, x, top);
  context.setLineDash([]);
}

// -------------------------------------------------------------------------------------------------------- the fit

function drawHistory(canvas, history) {
  const width = widthOf(canvas.parentElement), height = 250, context = prepare(canvas, width, height);
  return history.kind === "steps" ? drawSteps(context, width, height, history.candidates)
    : drawStrengths(context, width, height, history);
}

function drawSteps(context, width, height, candidates) {
  const least = (one) => Math.min(...one.validation_loss.filter((loss) => loss !== null));
  const best = candidates.reduce((a, b) => (least(b) < least(a) ? b : a));
  const all = candidates.flatMap((one) => [...one.validation_loss, ...(one === best ? one.training_loss : [])]).filter((loss) => loss !== null);
  const [low, high] = [Math.min(...all), Math.max(...all)], logY = low > 0 && high > 5 * low, room = 0.05 * (high - low) || 0.5;
  const steps = candidates.flatMap((one) => one.step), y = logY ? [low / 1.1, high * 1.1] : [low - room, high + room];
  const { toX, toY, box } = axes(context, width, height, {
    x: [0, Math.max(1, ...steps)], y, logY, yTicks: logY ? logTicks(...y) : undefined, xName: "step", yName: "loss",
  });
  const curve = (one, name, colour, thick) => {
    context.strokeStyle = colour;
    context.lineWidth = thick;
    context.beginPath();
    let open = false;
    one[name].forEach((loss, k) => {
      if (loss === null) { open = false; return; }
      if (open) context.lineTo(toX(one.step[k]), toY(loss)); else context.moveTo(toX(one.step[k]), toY(loss));
      open = true;
    });
    context.stroke();
  };
  for (const one of candidates) if (one !== best) curve(one, "validation_loss", "#c9ced3", 1);
  curve(best, "training_loss", "#0072b2", 1.6);
  curve(best, "validation_loss", "#c24e00", 1.6);
  const at = best.validation_loss.indexOf(least(best));
  context.strokeStyle = INK;
  dot(context, toX(best.step[at]), toY(least(best)), 5);
  context.stroke();
  keyOfLines(context, box, [["training", "#0072b2"], ["validation", "#c24e00"], ...(candidates.length > 1 ? [["other strengths", "#aab2ba"]] : [])]);
  return `Best validation loss ${least(best).toPrecision(4).replace("-", "−")} at step ${best.step[at].toLocaleString("en")} (ring).`
    + (candidates.length > 1 ? ` Grey: validation of the ${counted(candidates.length - 1, "other candidate")}.` : "");
}

function logTicks(low, high) {
  const found = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++) {
    for (const factor of high / low < 100 ? [1, 2, 5] : [1]) {
      const value = factor * 10 ** power;
      if (value >= low && value <= high) found.push(value);
    }
  }
  return found;
}

function keyOfLines(context, box, entries) {
  context.textAlign = "left";
  context.textBaseline = "middle";
  let x = box.right - entries.reduce((sum, [name]) => sum + context.measureText(name).width + 38, 0) + 14;
  for (const [name, colour] of entries) {
    context.strokeStyle = colour;
    context.lineWidth = 3;
    line(context, x, box.top + 8, x + 14, box.top + 8);
    context.fillStyle = SOFT;
    context.fillText(name, x + 19, box.top + 8);
    x += context.measureText(name).width + 38;
  }
}

// The validation loss of each strength; of several penalties each combination in order.
function drawStrengths(context, width, height, { names, values, losses }) {
  const one = names.length === 1 && values[names[0]].every((value) => value > 0);
  const xs = one ? values[names[0]] : losses.map((_, k) => k);
  const order = xs.map((_, k) => k).filter((k) => losses[k] !== null).sort((a, b) => xs[a] - xs[b]);
  const found = order.map((k) => losses[k]), [low, high] = [Math.min(...found), Math.max(...found)], room = 0.06 * (high - low) || 0.5;
  const x = one ? [Math.min(...xs) / 1.3, Math.max(...xs) * 1.3] : [-0.5, xs.length - 0.5];
  const { toX, toY } = axes(context, width, height, {
    x, y: [low - room, high + room], logX: one, xTicks: one ? logTicks(...x) : undefined,
    xName: one ? names[0] : `combination of ${names.join(" and ")}`, yName: "validation loss",
  });
  context.strokeStyle = context.fillStyle = "#c24e00";
  context.lineWidth = 1.6;
  context.beginPath();
  order.forEach((k, place) => (place ? context.lineTo(toX(xs[k]), toY(losses[k])) : context.moveTo(toX(xs[k]), toY(losses[k]))));
  context.stroke();
  for (const k of order) { dot(context, toX(xs[k]), toY(losses[k]), 2.6); context.fill(); }
  const best = losses.indexOf(low);
  context.strokeStyle = INK;
  dot(context, toX(xs[best]), toY(low), 5.5);
  context.stroke();
  return `Least validation loss ${low.toPrecision(4).replace("-", "−")} at ${names.map((name) => `${name} ${tickText(values[name][best])}`).join(", ")} (ring).`;
}
