// The playground: what is drawn goes to the server, and to the network that the page itself computes.
//
//   pad.js, pictures.js -> look() -> server.js, /api/predict -> answer.js, versions.js
//                                                            -> network.js -> diagram.js, neuron.js

import * as address from "./address.js";
import { showAnswer, showBroken, showNoAnswer, showWhy, showWhyNot } from "./answer.js";
import { Diagram } from "./diagram.js";
import * as examples from "./examples.js";
import { Network } from "./network.js";
import { describe } from "./neuron.js";
import { Pad } from "./pad.js";
import { listenForPictures } from "./pictures.js";
import { grey, paint } from "./pixels.js";
import * as server from "./server.js";
import { watchTraining } from "./training.js";
import { choose, compare, compareNothing, listVersions, reportOf } from "./versions.js";

const $ = (id) => document.getElementById(id);
const REFRESH_MS = 3000;
const RETRY_MS = 1000;
const REST_MS = 120;

const state = {
  models: [],
  network: null, // of the version that is chosen, where its weights are at hand
  passes: null, // what network.forward() returned
  answer: null, // the server's; its image is what the network sees
  ready: null, // an image that needs no preparation, such as one of the test data
  pointed: null, // [layer, neuron]
  isAway: false, // whether the server did not answer last time
  timer: null, // until it is asked again which versions there are
};
const pad = new Pad($("pad"), $("pen"), () => changed());
const diagram = new Diagram($("diagram"), { onPoint: point, onPress: turn, onResize: drawNetwork });
const newest = new server.Newest(look);
const details = new server.Newest(lookCloser);
const refreshed = new server.Newest(refresh);

const model = () => state.models.find(({ name }) => name === $("model").value);
const version = () => model()?.versions.find((one) => String(one.version) === $("version").value);

// --- the answer ------------------------------------------------------------------------------

function changed(remark) {
  state.ready = null;
  examples.leave(remark);
  showNotice("");
  newest.want();
}

/** Asks the version that is chosen about what is drawn. */
async function look() {
  const chosen = version();
  if (!chosen) return;
  try {
    state.answer = pad.isEmpty ? null : await ask(chosen);
  } catch (error) {
    return failed(error);
  }
  if (chosen !== version()) return; // another was chosen meanwhile, and is asked next
  if (state.answer?.image.some((value) => value > 0)) {
    showAnswer(state.answer, chosen);
    details.want();
  } else {
    showNoAnswer(state.answer ? "No digit was found in it." : "Nothing is drawn yet.", chosen.classes);
    compareNothing();
    state.answer = null;
  }
  drawNetwork();
  if (state.isAway) showNotice("");
  state.isAway = false;
}

function ask({ version, inputShape: [height, width] }) {
  if (state.ready?.height === height && state.ready.width === width) {
    return server.predict(state.ready, model().name, version);
  }
  if (height === width && $("prepare").checked) return server.predict(pad.picture(), model().name, version, width);
  return server.predict(pad.pictureOf(height, width), model().name, version);
}

/** Asks why, and what the other versions say, once the pen rests: the bars come first. */
async function lookCloser() {
  const [{ answer, models }, chosen] = [state, version()];
  const isStale = () => answer !== state.answer;
  await new Promise((resolve) => setTimeout(resolve, REST_MS));
  if (!answer || !chosen || isStale()) return;
  await explain(answer, chosen).catch((error) => showWhyNot(error.message));
  await compare(models, answer, chosen, isStale);
}

/** Shows which pixels spoke for the answer, or for the class that is pointed at, and which against. */
async function explain(answer, { version, classes, inputShape }) {
  const [layer, neuron] = state.pointed ?? [];
  const label = state.network && layer === state.network.layers.length - 1 ? neuron : answer.label;
  const { attributions } = await server.explain(answer.image, answer.model, version, label);
  showWhy(attributions, inputShape, classes[label]);
}

/** Says that the server did not answer, and tries again soon. */
function failed(error) {
  state.isAway = true;
  showNotice(error.message);
  refreshAfter(RETRY_MS);
}

function showNotice(text) {
  $("notice").hidden = !text;
  if ($("notice").textContent !== text) $("notice").textContent = text;
}

// --- the network -----------------------------------------------------------------------------

async function loadNetwork() {
  const chosen = version();
  state.network = state.pointed = state.answer = null;
  diagram.clear();
  $("report").hidden = !chosen?.hasReport;
  $("noise").value = 0;
  if (!chosen) return;
  $("report").href = reportOf(model().name, chosen.version);
  try {
    state.network = new Network(await server.network(model().name, chosen.version));
  } catch (error) {
    $("neuron").textContent = `The network is not shown: ${error.message}`;
  }
  drawNetwork();
}

/** Computes and draws the network, with what is broken of it, and keeps all in the address. */
function drawNetwork() {
  const { network } = state;
  if (!version()) return;
  const image = state.answer?.image;
  const example = examples.numberOf(image);
  address.keep({ model: model().name, version: version().version, image, example, network });
  $("mend").disabled = !network?.isBroken;
  $("turn").disabled = !network || !state.pointed;
  $("turn").textContent = network?.isOff(state.pointed) ? "Turn neuron on" : "Turn neuron off";
  if (!network) return showBroken(null, version().classes);
  $("noise").value = network.noise;
  $("noise-value").textContent = network.noise;
  state.passes = network.forward(inputs());
  diagram.draw(network, state.passes, version().classes, $("seen"), state.pointed);
  showBroken(network.isBroken && state.answer ? state.passes.at(-1).outputs : null, version().classes);
  showNeuron();
}

function inputs() {
  const { answer, network } = state;
  return Float64Array.from(answer?.image ?? new Uint8Array(network.layers[0].inputs), (value) => value / 255);
}

/** Shows the numbers of the neuron that is pointed at, or of the class that the server found. */
function showNeuron() {
  const { network, passes, answer } = state;
  const shown = state.pointed ?? (answer && [passes.length - 1, answer.label]);
  if (!network || !shown) return ($("neuron").textContent = "Point at a neuron.");
  const { classes, inputShape } = version();
  describe($("neuron"), network, passes, inputs(), inputShape, classes, shown);
}

function point(layer, neuron) {
  if (state.pointed?.join() === [layer, neuron].join()) return;
  state.pointed = [layer, neuron];
  drawNetwork();
  details.want();
}

function turn(layer, neuron) {
  const off = state.network.off[layer];
  off.delete(neuron) || off.add(neuron);
  drawNetwork();
}

// --- the versions that are served ------------------------------------------------------------

function refreshAfter(wait) {
  clearTimeout(state.timer);
  state.timer = setTimeout(() => refreshed.want(), wait);
}

/** Asks which versions are served, again and again: they appear and vanish, and so does the server. */
async function refresh() {
  try {
    const models = await server.models();
    if (!models.length) throw new Error("The server serves no version yet: train one, and this page shows it.");
    if (JSON.stringify(models) !== JSON.stringify(state.models)) await showModels(models);
    else if (state.isAway) newest.want();
    refreshAfter(REFRESH_MS);
  } catch (error) {
    failed(error);
  }
  document.body.dataset.state = "ready";
}

async function showModels(models) {
  const [name, before] = [$("model").value, version()];
  state.models = models;
  listVersions(models);
  if (!before) return showAddress();
  choose(state.models, name, String(before.version));
  const chosen = version();
  const isGone = model().name !== name || chosen.version !== before.version;
  if (isGone || chosen.createdAt !== before.createdAt) await loadNetwork();
  if (isGone) {
    state.isAway = false;
    showNotice(
      `Version ${before.version} of ${name} is served no longer. ` +
        `Version ${chosen.version} of ${model().name} answers now.`,
    );
  }
  newest.want();
}

async function showAddress() {
  const kept = address.read();
  choose(state.models, kept.get("model"), kept.get("version"));
  const wanted = [kept.get("model") ?? model().name, kept.get("version") ?? String(version().version)];
  await loadNetwork();
  const isOther = wanted[0] !== model().name || wanted[1] !== String(version().version);
  showNotice(
    isOther
      ? `This page's address names version ${wanted[1]} of ${wanted[0]}, which is not served. ` +
          `Version ${version().version} of ${model().name} answers instead.`
      : "",
  );
  if (state.network) address.breakAs(kept, state.network);
  if (!kept.has("image")) return newest.want();
  try {
    showReady(address.unpacked(kept.get("image"), version().inputShape));
  } catch (error) {
    return showNotice(error.message);
  }
  const { ready } = state;
  examples.leave();
  // Nothing waits for it: data that must be fetched first takes long. Without data there is no caption.
  const isStale = () => ready !== state.ready;
  examples.recognize(kept.get("example"), ready.bytes, isStale).then(drawNetwork, () => {});
}

// --- pictures --------------------------------------------------------------------------------

/** Shows an image that has the network's own form already, and asks about it as it is. */
function showReady(image) {
  const canvas = document.createElement("canvas");
  paint(canvas, image.bytes, [image.height, image.width], grey);
  pad.show({ picture: canvas, isSmooth: false });
  state.ready = image;
  newest.want();
}

function showPicture(read) {
  pad.show(read);
  changed(read.remark);
}

function showExample(bytes) {
  const [height, width] = version().inputShape;
  showReady({ width, height, bytes });
}

// --- what the visitor does -------------------------------------------------------------------

/** Returns a listener that shows on the page what went wrong. */
const saying = (job) => async (event) => {
  try {
    await job(event);
  } catch (error) {
    showNotice(error.message);
  }
};

$("clear").addEventListener("click", () => {
  pad.clear();
  state.pointed = null;
  changed();
});
$("next").addEventListener("click", saying(() => examples.step(1, showExample)));
$("previous").addEventListener("click", saying(() => examples.step(-1, showExample)));
$("prepare").addEventListener("change", () => newest.want());
listenForPictures($("file"), { onPicture: showPicture, onRefusal: (error) => showNotice(error.message) });
for (const name of ["model", "version"]) {
  $(name).addEventListener("change", saying(async () => {
    choose(state.models, $("model").value, name === "version" ? $("version").value : "");
    await loadNetwork();
    newest.want();
  }));
}
$("noise").addEventListener("input", ({ target }) => {
  if (!state.network) return;
  state.network.noise = Number(target.value);
  drawNetwork();
});
$("turn").addEventListener("click", () => turn(...state.pointed));
$("mend").addEventListener("click", () => (state.network.repair(), drawNetwork()));
addEventListener("hashchange", saying(showAddress));
watchTraining(async (name, number) => {
  await refresh();
  choose(state.models, name, number);
  await loadNetwork();
  newest.want();
});

showNoAnswer("Nothing is drawn yet.");
refreshed.want();
