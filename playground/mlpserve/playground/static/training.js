// Training while you watch: settings go to the server, and what its trainer finds comes back as events.

import { paintSigned } from "./pixels.js";
import { ask, models } from "./server.js";

const $ = (id) => document.getElementById(id);
const MODEL = "playground";
const RETRY_MS = 1000;
const MAX_FILE_MIB = 128;
const [WIDTH, HEIGHT, LEFT, BOTTOM, TOP] = [340, 170, 40, 20, 8]; // of a chart
const EPOCHS = 0; // what a point holds, by its index
const COLUMNS = { loss: [1, 3], accuracy: [2, 4] }; // of training, and of held-out images

const percent = (share) => `${(100 * share).toFixed(1)} %`;
const FORMATS = { loss: (nats) => nats.toFixed(3), accuracy: percent };
const PUBLISHING = `Once ${MODEL} is served beside other models, calls that name none need a --default-model.`;
const SENTENCES = {
  idle: () => "Choose how, and press Train.",
  running: () => "It trains.",
  stopping: () => "It stops after this step.",
  stopped: () => `It was stopped. Go on, publish it as it is, or change something and train anew. ${PUBLISHING}`,
  finished: ({ ended }) => `It ended: ${ended}. Publish it to predict with it, or change something and train anew. ${PUBLISHING}`,
  failed: () => "It failed.",
  publishing: () => "It is judged by the test images, and published.",
  published: ({ version, testAccuracy }) =>
    `It is published as version ${version} of ${MODEL}, and is right in ${percent(testAccuracy)} of the test images.`,
};

let run = 0;
let points = []; // of this run
let before = []; // of the run before
let source = null;

/** Shows the training, and calls `choose(model, version)` for a published version that is to predict. */
export function watchTraining(choose) {
  const form = $("settings");
  form.elements.recipe.addEventListener("change", ({ target }) => {
    const { rate, epochs } = target.selectedOptions[0].dataset;
    form.elements["learning-rate"].value = rate;
    form.elements.epochs.value = epochs;
  });
  form.elements.data.addEventListener("change", ({ target }) => ($("own").hidden = target.value !== "own"));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    act(() => begin(form));
  });
  for (const action of ["stop", "resume", "publish"]) $(action).addEventListener("click", () => act(() => post(action)));
  $("choose").addEventListener("click", ({ target }) => choose(MODEL, target.dataset.version));
  // A browser has few connections to a server: pages that nobody sees need none.
  document.addEventListener("visibilitychange", listen);
  listen();
}

function listen() {
  source?.close();
  if (document.hidden) return;
  source = new EventSource("/api/training");
  source.onmessage = ({ data }) => show(JSON.parse(data));
  source.onopen = () => ($("training-error").textContent = "");
  source.onerror = () => {
    source.close();
    $("training-said").textContent = "The playground does not answer. The page tries again.";
    setTimeout(listen, RETRY_MS);
  };
}

const post = (action, body) => ask(`/api/training/${action}`, { method: "POST", body });

async function act(job) {
  try {
    $("training-error").textContent = "";
    await job();
  } catch (error) {
    $("training-error").textContent = error.message;
  }
}

async function begin(form) {
  const { file, ...settings } = Object.fromEntries(new FormData(form));
  if (settings.data === "own" && file.size) {
    if (file.size > MAX_FILE_MIB << 20) throw new Error(`${file.name}: expected at most ${MAX_FILE_MIB} MiB.`);
    $("training-said").textContent = `${file.name} is sent.`;
    await post(`file?${new URLSearchParams({ name: file.name })}`, file);
  }
  await post("start", JSON.stringify(settings));
}

// --- what is shown ---------------------------------------------------------------------------

function show(state) {
  $("training").hidden = !state.isAllowed;
  if (!state.isAllowed) return source.close();
  if (state.run !== run) [run, before] = [state.run, points];
  points = [...points.slice(0, state.from), ...state.points];
  const said = SENTENCES[state.phase](state);
  if ($("training-said").textContent !== said) $("training-said").textContent = said;
  $("training-problems").textContent = [state.message, ...state.warnings].filter(Boolean).join("\n");
  $("start").disabled = state.isBusy;
  $("stop").disabled = !state.isBusy || state.phase === "stopping";
  $("resume").disabled = !state.canResume;
  $("publish").disabled = !state.canPublish;
  offer(state.phase === "published" ? String(state.version) : "");
  $("found").hidden = !points.length;
  if (!points.length) return;
  const { data, layers, epochs, "learning-rate": rate } = state.settings;
  $("training-now").textContent =
    `Epoch ${points.at(-1)[EPOCHS].toFixed(1)} of ${epochs}; ${state.file ?? data}, ` +
    `${layers ? `hidden layers of ${layers.replaceAll(",", ", ")}` : "no hidden layer"}, learning rate ${rate}.`;
  for (const name of ["loss", "accuracy"]) drawCurves(name, Number(epochs));
  if (state.network?.first_layer) drawLayer(state.network.first_layer);
  if (state.network?.confusions) showConfusions(state.network.confusions);
}

/** Offers to predict with a version as soon as it is served; "" for none. */
async function offer(version) {
  const button = $("choose");
  if (button.dataset.version === version) return;
  button.dataset.version = version;
  button.hidden = true;
  button.textContent = `Predict with version ${version}`;
  while (version && button.hidden && button.dataset.version === version) {
    const served = await models().catch(() => []);
    const { versions = [] } = served.find(({ name }) => name === MODEL) ?? {};
    button.hidden = !versions.some((one) => String(one.version) === version);
    await new Promise((done) => setTimeout(done, RETRY_MS));
  }
}

const make = (name, attributes, text = "") => {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.textContent = text;
  return element;
};

function drawCurves(name, epochs) {
  const [trained, judged] = COLUMNS[name];
  const lines = Object.entries({ before: [before, trained], plus: [points, trained], minus: [points, judged] }).map(
    ([kind, [from, column]]) => [kind, from.filter((one) => one[column] !== null && one[EPOCHS] <= epochs), column],
  );
  const top = name === "loss" ? Math.max(0.1, ...lines.flatMap(([, from, column]) => from.map((one) => one[column]))) : 1;
  const x = (epoch) => LEFT + ((WIDTH - LEFT - 8) * epoch) / epochs;
  const y = (value) => TOP + (HEIGHT - TOP - BOTTOM) * (1 - value / top);
  const axes = [0, top / 2, top].flatMap((value) => [
    make("line", { x1: LEFT, x2: x(epochs), y1: y(value), y2: y(value), class: "axis" }),
    make("text", { x: LEFT - 5, y: y(value) + 4, class: "left" }, name === "loss" ? value.toFixed(2) : `${100 * value} %`),
  ]);
  const ends = make("text", { x: x(epochs), y: HEIGHT - 4, class: "left" }, `${epochs} epochs`);
  const curves = lines.map(([kind, from, column]) =>
    make("polyline", { class: kind, points: from.map((one) => `${x(one[EPOCHS]).toFixed(1)},${y(one[column]).toFixed(1)}`).join(" ") }),
  );
  $(name).replaceChildren(...axes, ends, ...curves);
  const caption = $(`${name}-text`);
  for (const [kind, from, column] of lines) {
    const label = { before: "the run before", plus: "training", minus: "held-out images" }[kind];
    const value = from.length ? FORMATS[name](from.at(-1)[column]) : "";
    caption.querySelector(`.${kind}`).textContent = value && `${label} ${value}`;
  }
  $(name).setAttribute("aria-label", `Curve of the ${caption.textContent.replace(/\s+/g, " ")}`);
}

/** Draws the weights of each neuron as a picture, side by side. */
function drawLayer({ shape: [neurons, ...image], weights, scale }) {
  const [height, width, colours = 1] = image.length > 1 ? image : [1, ...image];
  const values = Int8Array.from(atob(weights), (character) => character.charCodeAt(0));
  const columns = Math.min(neurons, Math.max(1, Math.round(Math.sqrt((neurons * height) / width))));
  const size = [Math.ceil(neurons / columns) * (height + 1) - 1, columns * (width + 1) - 1];
  const pixels = new Array(size[0] * size[1]).fill(0);
  for (let neuron = 0; neuron < neurons; neuron++) {
    const corner = Math.floor(neuron / columns) * (height + 1) * size[1] + (neuron % columns) * (width + 1);
    for (let pixel = 0; pixel < height * width; pixel++) {
      const place = corner + Math.floor(pixel / width) * size[1] + (pixel % width);
      pixels[place] = values[(neuron * height * width + pixel) * colours];
    }
  }
  paintSigned($("first-layer"), pixels, size);
  const text = `The weights of ${neurons} neurons of the first layer, at most ${scale.toFixed(2)}: orange adds, blue takes away`;
  $("first-layer-text").textContent = text;
  $("first-layer").setAttribute("aria-label", text);
}

function showConfusions({ class_labels: labels, counts, split }) {
  const table = $("confusions");
  if (table.rows.length !== labels.length + 1) {
    const heading = (scope, text) => Object.assign(document.createElement("th"), { scope, textContent: text });
    const row = (first, cells) => {
      const found = document.createElement("tr");
      found.append(first, ...cells);
      return found;
    };
    table.tBodies[0].replaceChildren(
      row(document.createElement("td"), labels.map((label) => heading("col", label))),
      ...labels.map((label) => row(heading("row", label), labels.map(() => document.createElement("td")))),
    );
  }
  table.caption.textContent =
    `${split === "training" ? "Training" : "Held-out"} images: a row for what they are, a column for what they are taken for`;
  counts.forEach((row, truth) => {
    const most = Math.max(1, row.reduce((sum, count) => sum + count, 0));
    row.forEach((count, said) => {
      const cell = table.rows[truth + 1].cells[said + 1];
      cell.textContent = count || "";
      cell.className = truth === said ? "right" : "wrong";
      cell.style.setProperty("--share", `${Math.round((35 * count) / most)}%`);
    });
  });
}
