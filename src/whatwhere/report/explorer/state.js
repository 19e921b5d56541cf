// What is chosen, and who is told when that changes.

const state = { run: page.runs[0], neuron: 0, colour: null, compare: { x: 0, y: 1, score: null } };
const listeners = { run: [], neuron: [], colour: [], pictures: [] };

function on(event, listener) { listeners[event].push(listener); }

function tell(event) { for (const listener of listeners[event]) listener(); }

// Another neuron of the run, by its position.
function choose(neuron, { say = true } = {}) {
  state.neuron = neuron;
  tell("neuron");
  if (say) byId("live").textContent = saidOf(state.run, neuron);
}

// Another run; the same neuron stays chosen where that run has it.
function chooseRun(run) {
  const name = state.run.neurons[state.neuron];
  state.run = run;
  const place = run.neurons.indexOf(name);
  state.neuron = place >= 0 ? place : bestOf(run);
  state.colour = null;
  tell("run");
  tell("neuron");
  Promise.all([run.masks, run.field, run.exciting, run.kernels, run.held && run.held.thumbnails].map(readSheets))
    .then(() => {
      if (state.run !== run) return;
      tell("pictures");
      document.body.dataset.ready = "yes";
    });
}

function bestOf(run) {
  const score = mainScore(run);
  if (!score) return 0;
  const values = unpack(run.scores[score]);
  let best = 0;
  values.forEach((value, i) => { if (value > values[best] || !Number.isFinite(values[best])) best = i; });
  return best;
}

function saidOf(run, neuron) {
  const words = columnsOf(run).filter((column) => column.key === mainScore(run) || column.isText)
    .map((column) => `${column.label} ${textOf(column, neuron)}`);
  const locations = unpack(run.locations);
  if (locations) words.push(placeText(locations, neuron));
  return `Neuron ${run.neurons[neuron]}: ${words.join(", ")}`;
}

function placeText(locations, neuron) {
  const [row, column] = [locations[2 * neuron], locations[2 * neuron + 1]];
  return Number.isFinite(row) ? `at row ${row.toFixed(1)}, column ${column.toFixed(1)}` : "looks nowhere";
}
