// The visual field: every neuron as a dot where it looks.

const field = { places: null, box: null, base: null, look: null, spread: false };

function setUpField() {
  const canvas = byId("map");
  canvas.addEventListener("click", (event) => {
    const found = nearestOnMap(event);
    if (found >= 0) choose(found);
  });
  canvas.addEventListener("pointermove", (event) => hintOnMap(nearestOnMap(event)));
  canvas.addEventListener("pointerleave", () => hintOnMap(-1));
  canvas.addEventListener("keydown", (event) => {
    const way = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (!way) return;
    event.preventDefault();
    const found = neighbour(...way);
    if (found >= 0) choose(found);
  });
  byId("colour").addEventListener("change", (event) => {
    state.colour = event.target.value;
    tell("colour");
  });
  on("run", () => { placeNeurons(); fillColours(); drawField(); });
  on("colour", drawField);
  on("neuron", drawChosen);
  on("pictures", drawChosen);
}

// Where each dot is, in pixels of the image; those of one pixel are spread within it.
function placeNeurons() {
  const run = state.run, locations = unpack(run.locations);
  field.places = null;
  byId("map-figure").hidden = byId("colour-control").hidden = !locations;
  byId("no-map").hidden = Boolean(locations);
  if (!locations) {
    byId("no-map").textContent = `This ${run.model} model sees the whole image, so there is no map of where neurons look. `
      + "Choose a neuron in the table.";
    return;
  }
  const groups = new Map();
  for (let i = 0; i < run.neurons.length; i++) {
    const key = `${locations[2 * i]} ${locations[2 * i + 1]}`;
    if (!groups.has(key)) groups.set(key, []);
    groups.get(key).push(i);
  }
  field.places = Float32Array.from(locations);
  field.spread = false;
  for (const members of groups.values()) {
    if (members.length < 2) continue;
    field.spread = true;
    members.forEach((i, k) => {  // a sunflower's seeds: even, and the same each time
      const radius = 0.42 * Math.sqrt((k + 0.5) / members.length), angle = 2.39996 * k;
      field.places[2 * i] += radius * Math.sin(angle);
      field.places[2 * i + 1] += radius * Math.cos(angle);
    });
  }
}

function fillColours() {
  const select = byId("colour"), run = state.run;
  const columns = columnsOf(run).filter((column) => column.key !== "row" && column.key !== "column");
  select.replaceChildren(...columns.map((column) => make("option", { value: column.key, text: column.label })));
  select.disabled = columns.length === 0;
  const first = columns.find((column) => column.found) || columns.find((column) => column.key === mainScore(run));
  if (!columns.some((column) => column.key === state.colour)) state.colour = (first || columns[0] || {}).key || null;
  select.value = state.colour || "";
}

function colourColumn() { return columnsOf(state.run).find((column) => column.key === state.colour) || null; }

// What the dots' colours mean, as a function of the neuron, and the legend that says it.
function lookOfDots(column) {
  if (!column) return { look: () => [ACCENT, 0], legend: [] };
  if (column.isText) {
    const looks = column.names.map((_, k) => [page.colours[k % page.colours.length], Math.floor(k / page.colours.length)]);
    const counts = new Array(column.names.length).fill(0);
    column.index.forEach((k) => { counts[k] += 1; });
    const legend = column.names.slice(0, 14).map((name, k) => legendMark(looks[k], `${name} (${counts[k].toLocaleString("en")})`));
    if (column.names.length > 14) legend.push(make("span", { text: `and ${column.names.length - 14} more` }));
    return { look: (i) => looks[column.index[i]], legend };
  }
  const sorted = sortedValues(column);
  if (!sorted.length) return { look: () => ["#9aa3ab", 0], legend: [make("span", { text: "no values" })] };
  const low = quantile(sorted, 0.02), high = quantile(sorted, 0.98);
  const look = (i) => {
    const value = column.values[i];
    return Number.isFinite(value) ? [colourAt(MAPS.amount, high > low ? (value - low) / (high - low) : 0.5), 0] : ["#c9ced3", 0];
  };
  const bar = make("canvas", { "aria-hidden": "true" }), context = prepare(bar, 150, 10);
  for (let x = 0; x < 150; x++) {
    context.fillStyle = colourAt(MAPS.amount, x / 149);
    context.fillRect(x, 0, 1.5, 10);
  }
  const end = (value) => make("span", { text: value.toFixed(2).replace("-", "−") });
  return { look, legend: [end(low), bar, end(high), make("span", { text: column.label })] };
}

function legendMark([colour, shape], text) {
  const canvas = make("canvas", { "aria-hidden": "true" }), context = prepare(canvas, 12, 12);
  context.fillStyle = colour;
  dot(context, 6, 6, 4.2, shape);
  context.fill();
  return make("span", { class: "mark" }, canvas, text);
}

function fieldBox(canvas) {
  const [, height, width] = state.run.image;
  const wide = widthOf(canvas.parentElement);
  const scale = Math.min(wide / width, 440 / height);  // tall images are not to fill the screen
  return { scale, left: (wide - scale * width) / 2, width: wide, height: scale * height };
}

const toMapX = (column) => field.box.left + (column + 0.5) * field.box.scale;
const toMapY = (row) => (row + 0.5) * field.box.scale;

function dotRadius() {
  const area = field.box.scale ** 2 * state.run.image[1] * state.run.image[2];
  return Math.max(1.6, Math.min(6, 0.34 * Math.sqrt(area / state.run.neurons.length)));
}

// All dots, once; the chosen one is drawn over a copy.
function drawField() {
  if (!field.places) return;
  const canvas = byId("map"), run = state.run, [, height, width] = run.image;
  field.box = fieldBox(canvas);
  const context = prepare(canvas, field.box.width, field.box.height);
  context.fillStyle = GROUND;
  context.fillRect(field.box.left, 0, field.box.scale * width, field.box.height);
  const { look, legend } = lookOfDots(colourColumn()), radius = dotRadius();
  field.look = look;
  context.lineWidth = 0.6;
  context.strokeStyle = "rgba(27,33,38,.38)";
  for (let i = 0; i < run.neurons.length; i++) {
    if (!Number.isFinite(field.places[2 * i])) continue;
    const [colour, shape] = look(i);
    context.fillStyle = colour;
    dot(context, toMapX(field.places[2 * i + 1]), toMapY(field.places[2 * i]), radius, shape);
    context.fill();
    if (radius > 2.4) context.stroke();
  }
  field.base = make("canvas");
  field.base.width = canvas.width;
  field.base.height = canvas.height;
  field.base.getContext("2d").drawImage(canvas, 0, 0);
  byId("legend").replaceChildren(...legend);
  byId("map-caption").textContent = `Where each neuron looks, on the image of ${height} × ${width} pixels (row 0 on top).`
    + (field.spread ? " Neurons of one pixel are spread within it." : "")
    + " Click, or use arrow keys, to choose; the mask of the chosen one is drawn in.";
  drawChosen();
}

function drawChosen() {
  if (!field.places || !field.base) return;
  const canvas = byId("map"), run = state.run, i = state.neuron;
  const context = prepare(canvas, field.box.width, field.box.height);
  context.drawImage(field.base, 0, 0, field.box.width, field.box.height);
  drawMaskOnMap(context);
  const [row, column] = [field.places[2 * i], field.places[2 * i + 1]];
  if (Number.isFinite(row)) {
    const radius = dotRadius() + 5, [fill, shape] = field.look(i);
    context.fillStyle = fill;
    dot(context, toMapX(column), toMapY(row), dotRadius(), shape);
    context.fill();
    for (const [colour, thick] of [["#fff", 4.5], [INK, 2]]) {
      context.strokeStyle = colour;
      context.lineWidth = thick;
      dot(context, toMapX(column), toMapY(row), radius);
      context.stroke();
    }
  }
  const by = colourColumn();
  canvas.setAttribute("aria-label", `Visual field with ${counted(run.neurons.length, "neuron")}`
    + `${by ? `, coloured by ${by.label}` : ""}. Chosen: ${saidOf(run, i)}. Arrow keys go to the nearest neuron that way.`);
}

function drawMaskOnMap(context) {
  const spec = state.run.masks, cell = cellOf(spec, state.neuron);
  if (!cell) return;
  const strength = (i) => Math.abs(cell.data[4 * i] - 128) / 127;
  const picture = pixelCanvas(cell.width, cell.height, (data, at, i) => {
    data[at] = 0; data[at + 1] = 60; data[at + 2] = 110;
    data[at + 3] = Math.round(150 * Math.sqrt(strength(i)));
  });
  const [row, column] = edgeOf(spec, state.neuron);
  const side = field.box.scale * spec.step;
  enlarge(context, picture, toMapX(column), toMapY(row), side * cell.width, side * cell.height);
}

function edgeOf(spec, i) {
  const edges = unpack(spec.edges);
  return [edges[2 * i], edges[2 * i + 1]];
}

function nearestOnMap(event) {
  const canvas = byId("map"), frame = canvas.getBoundingClientRect();
  const x = event.clientX - frame.left, y = event.clientY - frame.top;
  let found = -1, least = 40 ** 2;
  for (let i = 0; i < state.run.neurons.length; i++) {
    const distance = (toMapX(field.places[2 * i + 1]) - x) ** 2 + (toMapY(field.places[2 * i]) - y) ** 2;
    if (distance < least) { least = distance; found = i; }
  }
  return found;
}

// The nearest neuron up, down, left or right, within 45 degrees of that way.
function neighbour(down, right) {
  const here = state.neuron, places = field.places;
  let found = -1, least = Infinity;
  for (let i = 0; i < state.run.neurons.length; i++) {
    const rows = places[2 * i] - places[2 * here], columns = places[2 * i + 1] - places[2 * here + 1];
    const ahead = rows * down + columns * right, aside = Math.abs(rows * right) + Math.abs(columns * down);
    const distance = ahead + 2 * aside;
    if (ahead > 1e-6 && aside <= ahead && distance < least) { least = distance; found = i; }
  }
  return found;
}

function hintOnMap(i) {
  const hint = byId("map-hint");
  hint.hidden = i < 0;
  if (i < 0) return;
  const by = colourColumn();
  hint.textContent = `${state.run.neurons[i]}${by ? ` · ${by.label} ${textOf(by, i)}` : ""}`;
  const x = toMapX(field.places[2 * i + 1]), y = toMapY(field.places[2 * i]);
  hint.style.left = `${Math.min(Math.max(0, x + 10), Math.max(0, field.box.width - hint.offsetWidth))}px`;
  hint.style.top = `${Math.max(0, y - 34)}px`;
}
