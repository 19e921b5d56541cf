// Drawing on canvases and making elements.

const INK = "#1b2126", SOFT = "#55606b", LINE = "#dfe3e7", GROUND = "#f5f6f8", ACCENT = "#0067a3";
const FONT = '12px system-ui, -apple-system, "Segoe UI", "Noto Sans", "DejaVu Sans", sans-serif';

function byId(id) { return document.getElementById(id); }

// An element with attributes and children; text is always text, never markup.
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "text") element.textContent = value; else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

function counted(n, what) { return `${n.toLocaleString("en")} ${what}${n === 1 ? "" : "s"}`; }

// A canvas made as sharp as the screen is, of so many CSS pixels; returns what draws on it.
function prepare(canvas, width, height) {
  const scale = Math.min(3, window.devicePixelRatio || 1);
  canvas.width = Math.max(1, Math.round(width * scale));
  canvas.height = Math.max(1, Math.round(height * scale));
  const context = canvas.getContext("2d");
  context.setTransform(scale, 0, 0, scale, 0, 0);
  context.clearRect(0, 0, width, height);
  context.font = FONT;
  context.lineJoin = "round";
  return context;
}

function colourAt(map, share) {
  const at = 3 * Math.max(0, Math.min(255, Math.round(255 * share)));
  return `rgb(${map[at]},${map[at + 1]},${map[at + 2]})`;
}

// A small canvas with one pixel a value, coloured by `paint(pixels, offset of RGBA, index)`.
function pixelCanvas(width, height, paint) {
  const canvas = make("canvas");
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, height);
  for (let i = 0; i < width * height; i++) {
    image.data[4 * i + 3] = 255;
    paint(image.data, 4 * i, i);
  }
  context.putImageData(image, 0, 0);
  return canvas;
}

// Codes around 128 as colours: white is zero, blue below, red above.
function signedCanvas(cell, left = 0, width = cell.width) {
  return pixelCanvas(width, cell.height, (data, at, i) => {
    const code = cell.data[4 * (Math.floor(i / width) * cell.width + left + (i % width))];
    const colour = 3 * code;
    data[at] = MAPS.signed[colour];
    data[at + 1] = MAPS.signed[colour + 1];
    data[at + 2] = MAPS.signed[colour + 2];
  });
}

// Codes as they are: grey of one channel, colours of three.
function plainCanvas(cell) {
  return pixelCanvas(cell.width, cell.height, (data, at, i) => {
    for (let k = 0; k < 3; k++) data[at + k] = cell.data[4 * i + k];
  });
}

function enlarge(context, source, left, top, width, height) {
  context.imageSmoothingEnabled = false;
  context.drawImage(source, left, top, width, height);
  context.imageSmoothingEnabled = true;
}

// Round numbers from low to high, about so many.
function ticks(low, high, about = 5) {
  const raw = (high - low) / about;
  if (!(raw > 0)) return [low];
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((one) => one >= raw);
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + 1e-9 * step; i++) found.push(i * step);
  return found;
}

function tickText(value) {
  const text = Math.abs(value) < 1e-12 ? "0" : String(Number(value.toPrecision(4)));
  return text.replace("-", "−");
}

// The frame of a graph: margins, ticks and names of the axes; returns functions from values to pixels.
function axes(context, width, height, { x, y, xName, yName, xTicks, yTicks, logX = false, logY = false }) {
  const box = { left: 54, right: width - 12, top: 10, bottom: height - 40 };
  const scale = (low, high, isLog, from, to) => (value) => {
    const [a, b, c] = isLog ? [Math.log(low), Math.log(high), Math.log(value)] : [low, high, value];
    return from + (b > a ? (c - a) / (b - a) : 0.5) * (to - from);
  };
  const toX = scale(x[0], x[1], logX, box.left, box.right), toY = scale(y[0], y[1], logY, box.bottom, box.top);
  context.strokeStyle = LINE;
  context.fillStyle = SOFT;
  context.lineWidth = 1;
  context.textAlign = "center";
  context.textBaseline = "top";
  let lastEnd = -Infinity;
  for (const value of xTicks || ticks(x[0], x[1], Math.max(2, width / 90))) {
    const at = toX(value), half = context.measureText(tickText(value)).width / 2;
    line(context, at, box.bottom, at, box.bottom + 4);
    if (at - half < lastEnd + 6 || at + half > width) continue;
    context.fillText(tickText(value), at, box.bottom + 7);
    lastEnd = at + half;
  }
  context.textAlign = "right";
  context.textBaseline = "middle";
  for (const value of yTicks || ticks(y[0], y[1], Math.max(2, height / 60))) {
    line(context, box.left, toY(value), box.right, toY(value));
    context.fillText(tickText(value), box.left - 7, toY(value));
  }
  context.textAlign = "center";
  context.textBaseline = "bottom";
  context.fillText(xName, (box.left + box.right) / 2, height - 2);
  context.save();
  context.translate(12, (box.top + box.bottom) / 2);
  context.rotate(-Math.PI / 2);
  context.textBaseline = "middle";
  context.fillText(yName, 0, -2);
  context.restore();
  return { toX, toY, box };
}

function line(context, x1, y1, x2, y2) {
  context.beginPath();
  context.moveTo(x1, y1);
  context.lineTo(x2, y2);
  context.stroke();
}

// A dot of one of six shapes, so that kinds whose colours are used up differ still.
function dot(context, x, y, radius, shape = 0) {
  context.beginPath();
  if (shape === 0) context.arc(x, y, radius, 0, 2 * Math.PI);
  else {
    const [corners, turn] = [[4, 0.25], [3, -0.25], [4, 0], [3, 0.25], [5, -0.25]][(shape - 1) % 5];
    for (let k = 0; k < corners; k++) {
      const angle = 2 * Math.PI * (k / corners + (corners === 4 ? turn / 2 : turn));
      context.lineTo(x + 1.25 * radius * Math.cos(angle), y + 1.25 * radius * Math.sin(angle));
    }
    context.closePath();
  }
}

// A figure with a title, a canvas that has a name for those who do not see it, and a note below.
function figureOf(title, kind = "") {
  const heading = make("h3", { text: title });
  const canvas = make("canvas", { role: "img" });
  const note = make("figcaption");
  const figure = make("figure", { class: kind }, heading, canvas, note);
  return { figure, heading, canvas, note };
}

// The middle of what is drawn within a width, but no wider than is good for it.
function widthOf(element, most = Infinity) { return Math.max(80, Math.min(most, element.clientWidth || 300)); }
