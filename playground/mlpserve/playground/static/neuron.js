// The numbers of one neuron: the formula, its largest terms and, of the first layer, its weights.

import { paintSigned } from "./pixels.js";

const SHOWN_TERMS = 5;

/** Fills a panel with the numbers of a neuron, from what `Network.forward` returned. */
export function describe(panel, network, passes, image, shape, classes, [index, neuron]) {
  const layer = network.layers[index];
  const inputs = index === 0 ? image : passes[index - 1].outputs;
  const terms = Array.from(inputs, (input, i) => ({ i, input, weight: network.weight(index, i, neuron) }));
  const isLast = index === network.layers.length - 1;
  panel.replaceChildren(
    element("h3", isLast ? `Class ${classes[neuron]}` : `Neuron ${neuron + 1} of layer ${index + 1}`),
    formula(layer, passes[index], terms, neuron, network.off[index].has(neuron)),
    index === 0 ? weightPictures(terms, shape) : largestTerms(terms),
  );
}

const number = (value) => value.toFixed(3).replace("-", "−");

function element(name, text) {
  const made = document.createElement(name);
  made.textContent = text;
  return made;
}

function formula({ activation, bias }, { sums, outputs }, terms, neuron, isOff) {
  const sum = terms.reduce((total, { input, weight }) => total + input * weight, 0);
  const [z, b] = [sums[neuron], bias[neuron]];
  const made = element("p", "");
  made.className = "formula";
  made.innerHTML = // numbers and the names of activations only
    `<span><var>z</var> = <var>w</var> · <var>x</var> + <var>b</var></span>` +
    `<span>= ${number(sum)} ${b < 0 ? "−" : "+"} ${number(Math.abs(b))} = <b>${number(z)}</b></span>` +
    `<span>${activationFormula(activation, z, outputs[neuron], sums)}</span>` +
    (isOff ? "<span>It is turned off: it puts out 0.</span>" : "");
  return made;
}

function activationFormula(activation, z, output, sums) {
  if (activation !== "softmax") return `<var>a</var> = ${activation}(<var>z</var>) = <b>${number(output)}</b>`;
  const total = sums.reduce((all, sum) => all + Math.exp(sum), 0);
  return (
    `<var>p</var> = e<sup>z</sup> / Σ e<sup>z</sup> = ${Math.exp(z).toPrecision(3)} / ` +
    `${total.toPrecision(3)} = <b>${(100 * output).toFixed(2)} %</b>`
  );
}

function largestTerms(terms) {
  const [found, list] = [element("div", "The largest terms of w · x:"), element("ol", "")];
  const bySize = [...terms].sort((a, b) => Math.abs(b.input * b.weight) - Math.abs(a.input * a.weight));
  for (const { i, input, weight } of bySize.slice(0, SHOWN_TERMS)) {
    const numbers = `${number(weight)} · ${number(input)} = ${number(weight * input)}`;
    list.append(element("li", `neuron ${i + 1}: ${numbers}`));
  }
  found.append(list);
  return found;
}

function weightPictures(terms, shape) {
  const figures = document.createElement("div");
  figures.className = "pictures";
  const pictures = {
    "w, its weights": terms.map(({ weight }) => weight),
    "w · x, with this image": terms.map(({ weight, input }) => weight * input),
  };
  for (const [caption, values] of Object.entries(pictures)) {
    const [figure, canvas] = [document.createElement("figure"), document.createElement("canvas")];
    paintSigned(canvas, values, shape);
    figure.append(canvas, element("figcaption", caption));
    figures.append(figure);
  }
  return figures;
}
