// The page's data: numbers and pictures as they were packed.

const page = JSON.parse(document.getElementById("data").textContent);
const TYPES = { f4: Float32Array, f8: Float64Array, u1: Uint8Array, u2: Uint16Array };
const MAPS = { amount: bytesOf(page.maps.amount), signed: bytesOf(page.maps.signed) };

function bytesOf(text) {
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
  return bytes;
}

// Unpacked when first asked for, and kept.
function unpack(packed) {
  if (!packed) return null;
  if (!packed.values) {
    packed.values = new TYPES[packed.type](bytesOf(packed.data).buffer);
    packed.data = null;
  }
  return packed.values;
}

// Pictures of all neurons on sheets: read once, then each cell by itself.
function readSheets(spec) {
  if (!spec) return Promise.resolve();
  if (!spec.reading) {
    spec.reading = Promise.all(spec.sheets.map(async (uri) => {
      const image = new Image();
      image.src = uri;
      await image.decode();
      return createImageBitmap(image);
    })).then((bitmaps) => { spec.bitmaps = bitmaps; spec.sheets = null; });
  }
  return spec.reading;
}

const scratch = document.createElement("canvas");
const scratchContext = scratch.getContext("2d", { willReadFrequently: true });

// The pixels of picture i: {width, height, data (RGBA)}; null while sheets are being read.
function cellOf(spec, i) {
  if (!spec || !spec.bitmaps) return null;
  const { width, height, columns, perSheet } = spec;
  const place = i % perSheet;
  scratch.width = width;
  scratch.height = height;
  const left = (place % columns) * width, top = Math.floor(place / columns) * height;
  scratchContext.drawImage(spec.bitmaps[Math.floor(i / perSheet)], left, top, width, height, 0, 0, width, height);
  return scratchContext.getImageData(0, 0, width, height);
}

// Columns of the table and of the colours: every number or kind that there is of each neuron of a run.
function columnsOf(run) {
  if (run.columns) return run.columns;
  const numbers = (key, label, values, digits, isScore) => ({ key, label, values, digits, isScore, isText: false });
  const kinds = run.groups.map((group, number) => {
    const index = unpack(group.index), found = group.found === true;
    return { key: `group ${number}`, label: sentence(group.label), names: group.names, index, isText: true, found };
  });
  const columns = kinds.filter((kind) => kind.found);
  for (const [name, packed] of Object.entries(run.scores)) {
    columns.push(numbers(name, page.scoreLabels[name].label, unpack(packed), 3, true));
  }
  columns.push(...kinds.filter((kind) => !kind.found));
  run.amounts.forEach((amount, number) => {
    columns.push(numbers(`amount ${number}`, sentence(amount.label), unpack(amount.values), amount.digits, false));
  });
  const locations = unpack(run.locations);
  if (locations) {
    const part = (offset) => Float32Array.from({ length: run.neurons.length }, (_, i) => locations[2 * i + offset]);
    columns.push(numbers("row", "Row", part(0), 1, false), numbers("column", "Column", part(1), 1, false));
  }
  run.columns = columns;
  return columns;
}

function textOf(column, i) {
  if (column.isText) return column.names[column.index[i]];
  const value = column.values[i];
  return Number.isFinite(value) ? value.toFixed(column.digits).replace("-", "−") : "–";
}

// The score that the page begins with.
function mainScore(run) {
  const known = ["fev", "correlation", "feve"].filter((name) => name in run.scores);
  return known.includes("correlation") ? "correlation" : known[0] || Object.keys(run.scores)[0] || null;
}

// Values in ascending order, without NaN; kept with their column.
function sortedValues(column) {
  if (!column.sorted) column.sorted = column.values.filter(Number.isFinite).sort();
  return column.sorted;
}

function quantile(sorted, share) {
  return sorted[Math.min(sorted.length - 1, Math.max(0, Math.round(share * (sorted.length - 1))))];
}

// The share of neurons below a value.
function rankOf(sorted, value) {
  let low = 0, high = sorted.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (sorted[middle] < value) low = middle + 1; else high = middle;
  }
  return sorted.length > 1 ? low / (sorted.length - 1) : 1;
}
