// The playground: what is drawn goes to the server, and to the network that the page itself computes.
//
//   Pad -> look() -> server.js: /api/predict -> showAnswer(), and network.js: forward() -> Diagram

import { Diagram, describe, signed } from "./diagram.js";
import { Network } from "./network.js";
import { greyOf, Pad, paint } from "./pad.js";
import * as server from "./server.js";

const $ = (id) => document.getElementById(id);
const RETRY_MS = 1500;
const MAX_PICTURE_PIXELS = 40e6;

const state = {
  models: [],
  network: null, // of the version that is chosen, where its weights are at hand
  image: null, // what the network sees: values of one byte
  answer: null, // the server's, to that image
  ready: null, // an image that needs no preparation, such as one of the test data
  pointed: null, // [layer, neuron]
  example: -1,
};
const pad = new Pad($("pad"), () => changed());
const diagram = new Diagram($("diagram"), {
  onPoint(...neuron) {
    state.pointed = neuron;
    showNeuron();
    if (state.answer) explain(state.answer, version()).catch((error) => showNotice(error.message));
  },
  onPress: (layer, neuron) => {
    const off = state.network.off[layer];
    off.delete(neuron) || off.add(neuron);
    drawNetwork();
    keepInAddress();
  },
});
const newest = new server.Newest(look);

const model = () => state.models.find(({ name }) => name === $("model").value);
const version = () => model()?.versions.find((one) => String(one.version) === $("version").value);

// --- what is asked of the server -------------------------------------------------------------

function changed() {
  state.ready = null;
  state.example = -1;
  $("truth").textContent = "";
  newest.want();
}

function picture() {
  if (state.ready) return { ...state.ready, isPrepared: true };
  return { ...pad.picture(), isPrepared: !$("prepare").checked };
}

/** Asks the chosen version, and then all others, about what is drawn. */
async function look() {
  const chosen = version();
  if (!chosen) return;
  if (!state.ready && pad.isEmpty()) {
    showNothing();
    keepInAddress();
    return;
  }
  const wanted = fitted(picture(), chosen.inputShape);
  try {
    const answer = await server.predict(wanted, model().name, chosen.version, wanted.isPrepared);
    state.image = answer.image;
    state.answer = answer;
    showAnswer(answer, chosen);
    drawNetwork();
    keepInAddress();
    showNotice("");
    await explain(answer, chosen);
    await compare(answer, chosen);
  } catch (error) {
    showNotice(error.message);
    setTimeout(() => recover(), RETRY_MS);
  }
}

/** Returns a picture that is not prepared in the size that the model takes. */
function fitted(wanted, [height, width]) {
  if (!wanted.isPrepared || (wanted.width === width && wanted.height === height)) return wanted;
  const canvas = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  canvas.imageSmoothingQuality = "high";
  canvas.drawImage($("pad"), 0, 0, width, height);
  return { ...greyOf(canvas.getImageData(0, 0, width, height)), isPrepared: true };
}

/** Shows which pixels spoke for the answer, or for the class that is pointed at, and which against. */
async function explain(answer, { version, classes, inputShape }) {
  if (!state.network) return showWhy(null);
  const [layer, neuron] = state.pointed ?? [];
  const label = layer === state.network.layers.length - 1 ? neuron : answer.label;
  const { attributions } = await server.explain(answer.image, model().name, version, label);
  showWhy(attributions, inputShape);
  $("why-text").textContent = `why ${classes[label]}: orange spoke for it, blue against`;
}

async function compare(answer, chosen) {
  for (const other of model().versions) {
    const cells = $("version-rows").querySelector(`[data-version="${other.version}"]`)?.children;
    if (!cells) continue;
    const same = { width: chosen.inputShape[1], height: chosen.inputShape[0], bytes: Uint8Array.from(answer.image) };
    try {
      const said = other === chosen ? answer : await server.predict(same, model().name, other.version, true);
      cells[6].textContent = `${said.milliseconds.toFixed(1)} ms`;
      cells[7].textContent = `${other.classes[said.label]} (${(100 * said.probabilities[said.label]).toFixed(1)} %)`;
    } catch {
      cells[7].textContent = "no answer";
    }
  }
}

async function loadModels() {
  state.models = await server.models();
  const wanted = new URLSearchParams(location.hash.slice(1));
  fill($("model"), state.models.map(({ name }) => [name, name]), wanted.get("model"));
  await showVersions(wanted.get("version"));
}

async function showVersions(wanted) {
  const { versions = [], defaultVersion } = model() ?? {};
  fill($("version"), versions.map(({ version }) => [version, String(version)]), wanted ?? String(defaultVersion));
  $("version-rows").replaceChildren(...versions.map((one) => versionRow(one)));
  await loadNetwork();
  if (!versions.length) throw new Error("The server serves no version yet: train one, and this page shows it.");
}

async function loadNetwork() {
  const chosen = version();
  state.network = null;
  state.pointed = null;
  diagram.clear();
  $("report").hidden = !chosen?.hasReport;
  if (!chosen) return;
  if (chosen.hasReport) $("report").href = `/report/${encodeURIComponent(model().name)}/${chosen.version}`;
  try {
    state.network = new Network(await server.network(model().name, chosen.version));
    $("neuron").textContent = "Point at a neuron.";
  } catch (error) {
    $("neuron").textContent = `The network is not shown: ${error.message}`;
  }
  $("noise").value = 0;
  drawNetwork();
}

/** Loads all anew after an error, until it succeeds. */
async function recover() {
  try {
    await loadModels();
    showNotice("");
    newest.want();
  } catch (error) {
    showNotice(error.message);
    setTimeout(recover, RETRY_MS);
  }
}

// --- what is shown ---------------------------------------------------------------------------

function fill(select, options, wanted) {
  select.replaceChildren(...options.map(([value, text]) => new Option(text, value)));
  if (options.some(([value]) => String(value) === wanted)) select.value = wanted;
}

function showNotice(text) {
  $("notice").hidden = !text;
  if ($("notice").textContent !== text) $("notice").textContent = text;
}

function showNothing() {
  state.image = state.answer = null;
  $("said").textContent = "Nothing is drawn yet.";
  $("took").textContent = "";
  $("bars").replaceChildren();
  paint($("seen"), new Array(784).fill(0), 28, 28, (value) => [value, value, value]);
  showWhy(null);
  drawNetwork();
}

function showAnswer(answer, { classes, inputShape }) {
  const sure = (100 * answer.probabilities[answer.label]).toFixed(1);
  $("said").textContent = `It says ${classes[answer.label]}, with ${sure} %.`;
  $("took").textContent = `${answer.model} version ${answer.version} answered in ${answer.milliseconds.toFixed(1)} ms.`;
  while ($("bars").children.length > classes.length) $("bars").lastChild.remove();
  classes.forEach((name, index) => {
    const bar = $("bars").children[index] ?? $("bars").appendChild(newBar());
    const [label, meter, percent] = bar.children;
    label.textContent = name;
    meter.value = answer.probabilities[index];
    meter.setAttribute("aria-label", `Probability of ${name}`);
    percent.textContent = `${(100 * answer.probabilities[index]).toFixed(1)} %`;
    bar.className = index === answer.label ? "best" : "";
  });
  paint($("seen"), answer.image, inputShape[1], inputShape[0], (value) => [value, value, value]);
}

function showWhy(attributions, [height, width] = [28, 28]) {
  const values = attributions ?? new Array(height * width).fill(0);
  const largest = values.reduce((most, value) => Math.max(most, Math.abs(value)), 1e-9);
  paint($("why"), values, width, height, (value) => signed(value / largest));
  $("why-text").textContent = "why: which pixels spoke for and against";
}

function newBar() {
  const bar = document.createElement("li");
  bar.append(document.createElement("span"), document.createElement("meter"), document.createElement("span"));
  return bar;
}

function drawNetwork() {
  const { network } = state;
  $("mend").disabled = !network?.isBroken;
  $("noise-value").textContent = $("noise").value;
  if (!network) return;
  const { classes } = version();
  const inputs = Float64Array.from(state.image ?? new Array(network.layers[0].inputs).fill(0), (v) => v / 255);
  state.passes = network.forward(inputs);
  diagram.draw(network, state.passes, classes, $("seen"));
  const { outputs } = state.passes.at(-1);
  [...$("bars").children].forEach((bar, index) => {
    bar.title = network.isBroken ? `broken: ${(100 * outputs[index]).toFixed(1)} %` : "";
  });
  $("said").dataset.broken = network.isBroken
    ? `The broken network on this page says ${classes[outputs.indexOf(Math.max(...outputs))]}.`
    : "";
  showNeuron();
}

function showNeuron() {
  const { network, passes, pointed, image } = state;
  if (!network || !pointed) return;
  const { classes, inputShape } = version();
  const inputs = Array.from(image ?? new Array(network.layers[0].inputs).fill(0), (value) => value / 255);
  describe($("neuron"), network, passes, inputs, inputShape, classes, pointed);
}

function versionRow(one) {
  const row = document.createElement("tr");
  row.dataset.version = one.version;
  const cells = [
    one.version,
    one.layerSizes.join("-"),
    one.recipe,
    one.data,
    `${(100 * one.testAccuracy).toFixed(2)} %`,
    one.weightsBytes === null ? "" : `${Math.round(one.weightsBytes / 1024)} KiB`,
    "",
    "",
  ];
  row.append(...cells.map((text, index) => {
    const cell = document.createElement(index ? "td" : "th");
    if (!index) cell.scope = "row";
    cell.textContent = text;
    return cell;
  }));
  const report = row.insertCell();
  if (one.hasReport) {
    const link = document.createElement("a");
    link.href = `/report/${encodeURIComponent(model().name)}/${one.version}`;
    link.textContent = "report";
    link.setAttribute("aria-label", `Report of version ${one.version}`);
    report.append(link);
  }
  return row;
}

// --- the address of the page holds what is shown ------------------------------------------------

function keepInAddress() {
  const kept = new URLSearchParams({ model: $("model").value, version: $("version").value });
  const off = state.network?.off.flatMap((layer, index) => [...layer].map((neuron) => `${index}.${neuron}`));
  if (off?.length) kept.set("off", off.join());
  if (state.network?.noise) kept.set("noise", state.network.noise);
  // Sixteen shades are enough to see and to classify the same; two pixels make a byte.
  if (state.image) kept.set("image", shortened(state.image));
  history.replaceState(null, "", `#${kept}`);
}

function shortened(image) {
  const bytes = Array.from({ length: Math.ceil(image.length / 2) }, (_, index) => {
    return ((image[2 * index] >> 4) << 4) | ((image[2 * index + 1] ?? 0) >> 4);
  });
  return btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_");
}

function lengthened(text, [height, width]) {
  const packed = atob(text.replaceAll("-", "+").replaceAll("_", "/"));
  const bytes = new Uint8Array(height * width);
  for (let pixel = 0; pixel < bytes.length; pixel++) {
    const pair = packed.charCodeAt(pixel >> 1);
    bytes[pixel] = 17 * (pixel % 2 ? pair & 15 : pair >> 4);
  }
  return { height, width, bytes };
}

function showFromAddress() {
  const kept = new URLSearchParams(location.hash.slice(1));
  const chosen = version();
  if (chosen && kept.has("image")) {
    try {
      showReady(lengthened(kept.get("image"), chosen.inputShape));
    } catch {
      showNotice("The image in this page's address is damaged.");
    }
  }
  if (!state.network) return;
  state.network.noise = Math.min(2, Math.max(0, Number(kept.get("noise")) || 0));
  $("noise").value = state.network.noise;
  for (const neuron of (kept.get("off") ?? "").split(",").filter(Boolean)) {
    const [layer, number] = neuron.split(".").map(Number);
    if (number < state.network.layers[layer]?.outputs) state.network.off[layer].add(number);
  }
}

// --- pictures ------------------------------------------------------------------------------------

/** Shows an image that has the network's own form already, and asks about it as it is. */
function showReady(image) {
  const canvas = document.createElement("canvas");
  paint(canvas, image.bytes, image.width, image.height, (value) => [value, value, value]);
  pad.show(canvas, { isSmooth: false });
  state.ready = image;
  newest.want();
}

async function showPicture(file) {
  try {
    if (!file.type.startsWith("image/")) throw new Error(`${file.name || "What was dropped"} is no picture.`);
    const bitmap = await createImageBitmap(file).catch(() => {
      throw new Error(`${file.name || "The picture"} cannot be read as a picture.`);
    });
    if (bitmap.width * bitmap.height > MAX_PICTURE_PIXELS) {
      throw new Error(`The picture has ${bitmap.width} x ${bitmap.height} pixels: expected at most 40 million.`);
    }
    pad.show(bitmap, { isSmooth: true });
    changed();
  } catch (error) {
    showNotice(error.message);
  }
}

async function showExample(step) {
  const chosen = version();
  if (!chosen) return;
  try {
    const number = Math.max(0, state.example + step);
    const { image, label, data, count } = await server.example(number);
    const [height, width] = chosen.inputShape;
    showReady({ width, height, bytes: Uint8Array.from(image) });
    state.example = number;
    $("truth").textContent = `Image ${(number % count) + 1} of ${count} of ${data}: a ${label}.`;
  } catch (error) {
    showNotice(error.message);
  }
}

// --- what the visitor does -------------------------------------------------------------------------

$("clear").addEventListener("click", () => (pad.clear(), changed()));
$("next").addEventListener("click", () => showExample(1));
$("previous").addEventListener("click", () => showExample(-1));
$("prepare").addEventListener("change", () => newest.want());
$("file").addEventListener("change", ({ target }) => target.files[0] && showPicture(target.files[0]));
$("model").addEventListener("change", () => showVersions().then(() => newest.want(), (error) => showNotice(error.message)));
$("version").addEventListener("change", () => loadNetwork().then(() => newest.want()));
$("noise").addEventListener("input", ({ target }) => {
  if (!state.network) return;
  state.network.noise = Number(target.value);
  drawNetwork();
  keepInAddress();
});
$("mend").addEventListener("click", () => {
  state.network.repair();
  $("noise").value = 0;
  drawNetwork();
  keepInAddress();
});
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => {
  event.preventDefault();
  const file = event.dataTransfer.files[0];
  file ? showPicture(file) : showNotice("What was dropped is no file of a picture.");
});
addEventListener("paste", ({ clipboardData }) => {
  const item = [...clipboardData.items].find(({ type }) => type.startsWith("image/"));
  item ? showPicture(item.getAsFile()) : showNotice("The clipboard holds no picture.");
});

showNothing();
try {
  await loadModels();
  showFromAddress();
} catch (error) {
  showNotice(error.message);
  setTimeout(recover, RETRY_MS);
}
document.body.dataset.state = "ready";
