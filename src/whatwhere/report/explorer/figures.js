// The figures of one neuron: each fills a canvas and returns what there is to say of it.

const POINT = { at: -1 };  // which test image is pointed at in the scatter

function rangeText(spec, i, height, width) {
  const [row, column] = edgeOf(spec, i);
  const [, imageHeight, imageWidth] = state.run.image;
  const clip = (value, most) => Math.max(0, Math.min(most - 1, value));
  const end = (start, n, most) => clip(Math.ceil(start + n * spec.step - 0.5 - 1e-6), most);
  const rows = [clip(Math.floor(row + 0.5), imageHeight), end(row, height, imageHeight)];
  const columns = [clip(Math.floor(column + 0.5), imageWidth), end(column, width, imageWidth)];
  return `rows ${rows[0]}–${rows[1]}, columns ${columns[0]}–${columns[1]}`;
}

// A cropped picture as large as there is room for, framed, with a small map of where it is in the image.
function drawPiece(canvas, picture, spec, i, { outline = null } = {}) {
  const ratio = picture.height / picture.width;
  const width = widthOf(canvas.parentElement), most = 250;
  const shown = Math.min(width, ratio > 0 ? most / ratio : width);
  const height = Math.round(shown * ratio);
  const context = prepare(canvas, width, height);
  enlarge(context, picture, 0, 0, shown, height);
  if (outline) drawOutline(context, outline, shown / picture.width, height / picture.height);
  context.strokeStyle = "#aab2ba";
  context.lineWidth = 1;
  context.strokeRect(0.5, 0.5, shown - 1, height - 1);
  drawPlace(context, spec, i, picture.width, picture.height, shown, width);
}

// The place of the piece in the whole image: beside it where there is room, else in its corner.
function drawPlace(context, spec, i, n, m, shown, width) {
  const [, imageHeight, imageWidth] = state.run.image;
  const whole = n * spec.step >= imageWidth && m * spec.step >= imageHeight;
  if (whole) return;
  const scale = 44 / Math.max(imageHeight, imageWidth), w = imageWidth * scale, h = imageHeight * scale;
  const beside = width - shown > 56;
  const left = beside ? shown + 10 : shown - w - 5, top = beside ? 0 : 5;
  const [row, column] = edgeOf(spec, i);
  context.fillStyle = "rgba(255,255,255,.86)";
  context.fillRect(left, top, w, h);
  context.strokeStyle = "#77818b";
  context.lineWidth = 1;
  context.strokeRect(left + 0.5, top + 0.5, w - 1, h - 1);
  context.fillStyle = ACCENT;
  context.fillRect(left + Math.max(0, column + 0.5) * scale, top + Math.max(0, row + 0.5) * scale,
    Math.max(3, Math.min(w, n * spec.step * scale)), Math.max(3, Math.min(h, m * spec.step * scale)));
}

// A line around the cells that are inside.
function drawOutline(context, { inside, width, height }, dx, dy) {
  const at = (x, y) => x >= 0 && y >= 0 && x < width && y < height && inside[y * width + x];
  context.beginPath();
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      if (!at(x, y)) continue;
      const sides = [[0, -1, 0, 0, 1, 0], [0, 1, 0, 1, 1, 1], [-1, 0, 0, 0, 0, 1], [1, 0, 1, 0, 1, 1]];
      for (const [ox, oy, x1, y1, x2, y2] of sides) {
        if (at(x + ox, y + oy)) continue;
        context.moveTo((x + x1) * dx, (y + y1) * dy);
        context.lineTo((x + x2) * dx, (y + y2) * dy);
      }
    }
  }
  context.strokeStyle = "#fff";
  context.lineWidth = 4;
  context.stroke();
  context.strokeStyle = INK;
  context.lineWidth = 1.8;
  context.stroke();
}

function drawMask(canvas, i) {
  const spec = state.run.masks, cell = cellOf(spec, i);
  if (!cell) return "";
  drawPiece(canvas, signedCanvas(cell), spec, i);
  if (unpack(spec.limits)[i] === 0) return "The mask is zero everywhere: the neuron looks nowhere.";
  return `Where it looks: ${rangeText(spec, i, cell.height, cell.width)}.${spec.signed ? " Red is positive, blue negative." : ""}`;
}

function drawPosterior(canvas, i) {
  const spec = state.run.masks, cell = cellOf(spec, i);
  if (!cell) return "";
  const [highest, entropy, region] = ["highest", "entropy", "region"].map((name) => unpack(spec.posterior[name])[i]);
  const picture = pixelCanvas(cell.width, cell.height, (data, at, k) => {
    const colour = 3 * cell.data[4 * k + 1];
    for (let c = 0; c < 3; c++) data[at + c] = MAPS.amount[colour + c];
  });
  const inside = Uint8Array.from({ length: cell.width * cell.height }, (_, k) => (cell.data[4 * k + 2] > 127 ? 1 : 0));
  drawPiece(canvas, picture, spec, i, { outline: { inside, width: cell.width, height: cell.height } });
  const percent = Math.round(100 * spec.posterior.level);
  return `Framed, ${counted(region, "pixel")}: where it is with ${percent} % probability. `
    + `Most probable pixel ${(100 * highest).toFixed(0)} %, uncertainty ${entropy.toFixed(2)} nats.`;
}

function drawFieldOf(canvas, i) {
  const spec = state.run.field, cell = cellOf(spec, i);
  if (!cell) return "";
  if (spec.made && !unpack(spec.made)[i]) return notMade(canvas);
  const n = spec.channels, width = cell.width / n;
  if (n === 1) drawPiece(canvas, signedCanvas(cell), spec, i);
  else drawChannels(canvas, cell, n, width, widthOf(canvas.parentElement));
  const channels = n > 1 ? ` Channels 0 to ${n - 1} from left to right.` : "";
  return `Red: brighter excites it; blue: darker does. ${sentence(rangeText(spec, i, cell.height, width))}.${channels}`;
}

function notMade(canvas) {
  prepare(canvas, widthOf(canvas.parentElement), 24);
  return "Not made for this neuron.";
}

function sentence(text) { return text.charAt(0).toUpperCase() + text.slice(1); }

// Channels of one picture side by side with a gap.
function drawChannels(canvas, cell, n, width, room) {
  const gap = 4, most = 120;
  const each = Math.min((room - gap * (n - 1)) / n, (most * width) / cell.height), height = (each * cell.height) / width;
  const context = prepare(canvas, room, height);
  for (let k = 0; k < n; k++) {
    const left = k * (each + gap);
    enlarge(context, signedCanvas(cell, k * width, width), left, 0, each, height);
    context.strokeStyle = "#aab2ba";
    context.strokeRect(left + 0.5, 0.5, each - 1, height - 1);
  }
}

function drawExciting(canvas, i) {
  const spec = state.run.exciting, cell = cellOf(spec, i);
  if (!cell) return "";
  if (!unpack(spec.made)[i]) return notMade(canvas);
  const width = widthOf(canvas.parentElement), ratio = cell.height / cell.width;
  const shown = Math.min(width, 250 / ratio);
  enlarge(prepare(canvas, width, shown * ratio), plainCanvas(cell), 0, 0, shown, shown * ratio);
  return "The image that the model says excites it most, on a scale of its own; its mean is grey.";
}

// Observed, predicted and standard error of a neuron, an image each, in the units of the responses.
function responsesOf(i) {
  const held = state.run.held, n = held.rows.length;
  const low = unpack(held.low)[i], high = unpack(held.high)[i];
  const top = held.predicted.type === "u2" ? 65535 : 255;
  const value = (code) => (code === top ? NaN : low + ((high - low) * code) / (top - 1));
  const part = (packed, from) => Float32Array.from(packed.subarray(i * n, (i + 1) * n), from);
  const limit = unpack(held.errorLimits)[i];
  return {
    n, low, high,
    observed: part(unpack(held.observed), value),
    predicted: part(unpack(held.predicted), value),
    errors: part(unpack(held.errors), (code) => (limit * code) / 255),
  };
}

function drawScatter(canvas, i) {
  const held = state.run.held, found = responsesOf(i);
  const width = widthOf(canvas.parentElement), height = Math.min(340, Math.max(250, width * 0.82));
  const context = prepare(canvas, width, height);
  const room = 0.04 * (found.high - found.low) || 0.5, range = [found.low - room, found.high + room];
  const { toX, toY, box } = axes(context, width, height, {
    x: range, y: range, xName: "observed response", yName: "predicted response",
  });
  context.save();
  context.beginPath();
  context.rect(box.left, box.top, box.right - box.left, box.bottom - box.top);
  context.clip();
  context.strokeStyle = "#87929d";
  context.setLineDash([5, 4]);
  line(context, toX(range[0]), toY(range[0]), toX(range[1]), toY(range[1]));
  context.setLineDash([]);
  const dense = found.n > 250;
  if (held.hasErrors) {
    context.strokeStyle = dense ? "rgba(0,103,163,.10)" : "rgba(0,103,163,.24)";
    for (let k = 0; k < found.n; k++) {
      const y = toY(found.predicted[k]);
      line(context, toX(found.observed[k] - found.errors[k]), y, toX(found.observed[k] + found.errors[k]), y);
    }
  }
  context.fillStyle = dense ? "rgba(0,103,163,.5)" : "rgba(0,103,163,.78)";
  for (let k = 0; k < found.n; k++) {
    dot(context, toX(found.observed[k]), toY(found.predicted[k]), dense ? 2.2 : 3.2);
    context.fill();
  }
  if (POINT.at >= 0 && POINT.at < found.n) {
    context.strokeStyle = INK;
    context.lineWidth = 2;
    dot(context, toX(found.observed[POINT.at]), toY(found.predicted[POINT.at]), 6);
    context.stroke();
  }
  context.restore();
  canvas.points = { toX, toY, found };
  return scatterText(i, found);
}

function scatterText(i, found) {
  const held = state.run.held, run = state.run;
  const score = (name) => (name in run.scores ? unpack(run.scores[name])[i] : NaN);
  const parts = [];
  if (Number.isFinite(score("correlation"))) {
    const ceiling = score("noise_ceiling");
    parts.push(`Correlation ${score("correlation").toFixed(2)}`
      + (Number.isFinite(ceiling) ? ` of at most ${ceiling.toFixed(2)}, the noise ceiling` : ""));
  }
  const images = found.n < held.nImages ? `${found.n.toLocaleString("en")} of ${counted(held.nImages, "test image")}, evenly spaced` : counted(found.n, "test image");
  parts.push(sentence(`${images}, averaged over repeats${held.hasErrors ? "; lines: ± its standard error" : ""}`));
  return `${parts.join(". ")}. Dashed: equal.`.replaceAll("-", "−").replace("evenly−spaced", "evenly spaced");
}

function drawBarcode(canvas, i) {
  const { n, codes, limits } = state.run.barcode, weights = unpack(codes).subarray(i * n, (i + 1) * n);
  const limit = unpack(limits)[i], value = (k) => ((weights[k] - 128) / 127) * limit;
  const width = widthOf(canvas.parentElement), height = 170, context = prepare(canvas, width, height);
  const values = Array.from(weights, (_, k) => value(k)), most = limit || 1;
  const low = Math.min(0, ...values) < 0 ? -most : 0, high = Math.max(0, ...values) > 0 || low === 0 ? most : 0;
  const { toY, box } = axes(context, width, height, {
    x: [-0.5, n - 0.5], y: [low, high], xName: "feature", yName: "weight",
    xTicks: ticks(0, n - 1, Math.min(n, 8)).filter((one) => Number.isInteger(one)), yTicks: ticks(low, high, 4),
  });
  const step = (box.right - box.left) / n, thick = Math.max(1, Math.min(26, step * 0.72));
  values.forEach((one, k) => {
    context.fillStyle = one >= 0 ? "#b2182b" : "#2166ac";
    const x = box.left + (k + 0.5) * step - thick / 2;
    context.fillRect(x, Math.min(toY(0), toY(one)), thick, Math.max(one === 0 ? 0 : 1, Math.abs(toY(one) - toY(0))));
  });
  context.strokeStyle = SOFT;
  line(context, box.left, toY(0), box.right, toY(0));
  const order = strongest(values, 1);
  const which = state.run.kernelsAreFeatures ? "the kernels below" : "the maps that the core's last layer gives";
  return limit === 0 ? "All weights are zero."
    : `What it computes: its weight for each of ${counted(n, "feature")}, ${which}. Largest: feature ${order[0]}.`;
}

// Positions of the largest magnitudes.
function strongest(values, n) {
  return values.map((_, k) => k).sort((a, b) => Math.abs(values[b]) - Math.abs(values[a])).slice(0, n);
}

// The kernels that the neuron weighs most, or of all features where they are few.
function drawFeatures(holder, i) {
  const { n, codes, limits } = state.run.barcode, limit = unpack(limits)[i];
  const values = Array.from(unpack(codes).subarray(i * n, (i + 1) * n), (code) => ((code - 128) / 127) * limit);
  const cells = strongest(values, 6).filter((k) => values[k] !== 0).map((k) => kernelFigure(k, `${k}: ${values[k].toFixed(2).replace("-", "−")}`));
  holder.replaceChildren(...cells.filter(Boolean));
}

function kernelFigure(k, text) {
  const spec = state.run.kernels, cell = cellOf(spec, k);
  if (!cell) return null;
  const canvas = make("canvas", { role: "img", class: "pixels", "aria-label": `Kernel ${k}` });
  const source = signedCanvas(cell);
  canvas.width = source.width;
  canvas.height = source.height;
  canvas.getContext("2d").drawImage(source, 0, 0);
  return make("figure", {}, canvas, text);
}

// The test images with the largest values, as small pictures.
function drawImages(holder, i, which) {
  const found = responsesOf(i), values = found[which], pictures = state.run.held.thumbnails;
  const pictured = state.run.held.pictured, order = pictured.filter((k) => Number.isFinite(values[k]));
  order.sort((a, b) => values[b] - values[a]);
  holder.replaceChildren(...order.slice(0, 6).map((k) => {
    const cell = cellOf(pictures, pictured.indexOf(k));
    if (!cell) return "";
    const canvas = make("canvas", { role: "img", class: "pixels", "aria-label": `Test image ${state.run.held.rows[k]}` });
    const source = plainCanvas(cell);
    canvas.width = source.width;
    canvas.height = source.height;
    canvas.getContext("2d").drawImage(source, 0, 0);
    return make("figure", {}, canvas, values[k].toPrecision(3).replace("-", "−"));
  }));
}
