// The answer: what the server said, as bars, and which pixels spoke for it.

import { grey, paint, paintSigned } from "./pixels.js";

const $ = (id) => document.getElementById(id);
export const percent = (share, digits = 1) => `${(100 * share).toFixed(digits)}\u00a0%`;

export function showAnswer(answer, { classes, inputShape }) {
  const { model, version, label, probabilities, image, milliseconds, isUnlikeTraining } = answer;
  $("said").textContent = `It says ${classes[label]}, with ${percent(probabilities[label])}.`;
  $("unlike").textContent = isUnlikeTraining ? "But this does not look like what it learned." : "";
  $("took").textContent = `${model} version ${version}, in ${milliseconds.toFixed(1)} ms`;
  showBars(classes, probabilities);
  $("bars").children[label].className = "best";
  paint($("seen"), image, inputShape, grey);
}

export function showNoAnswer(reason, classes = []) {
  $("said").textContent = reason;
  $("unlike").textContent = "";
  $("took").textContent = "";
  showBars(classes);
  paint($("seen"), [0], [1, 1], grey);
  showWhy();
}

function showBars(classes, probabilities) {
  while ($("bars").children.length > classes.length) $("bars").lastChild.remove();
  classes.forEach((name, index) => {
    const bar = $("bars").children[index] ?? $("bars").appendChild(newBar());
    const [title, meter, number] = bar.children;
    title.textContent = name;
    meter.value = probabilities?.[index] ?? 0;
    meter.setAttribute("aria-label", `Probability of ${name}`);
    number.textContent = probabilities ? percent(probabilities[index]) : "";
    bar.className = "";
  });
}

function newBar() {
  const bar = document.createElement("li");
  bar.append(...["span", "meter", "span", "meter"].map((name) => document.createElement(name)));
  bar.lastChild.className = "broken";
  return bar;
}

/** Shows what each pixel added to the logit of a class; without arguments, nothing. */
export function showWhy(attributions = [0], shape = [1, 1], name = "") {
  paintSigned($("why"), attributions, shape);
  $("why-text").textContent = name
    ? `why ${name}: orange spoke for it, blue against`
    : "why: which pixels spoke for and against";
}

export function showWhyNot(reason) {
  showWhy();
  $("why-text").textContent = `no explanation: ${reason}`;
}

/** Shows what a network that is broken on this page makes of the image; without outputs, nothing. */
export function showBroken(outputs, classes) {
  const best = outputs?.indexOf(Math.max(...outputs));
  $("broken").textContent = outputs
    ? `Red: the broken network on this page says ${classes[best]}, with ${percent(outputs[best])}.`
    : "";
  [...$("bars").children].forEach(({ lastChild: meter }, index) => {
    meter.hidden = !outputs;
    meter.value = outputs?.[index] ?? 0;
    meter.setAttribute("aria-label", `Probability of ${classes[index]} by the broken network`);
  });
}
