// The network as a drawing: a column of neurons for each layer, and lines for what they add.

import { signed } from "./pixels.js";

const SVG = "http://www.w3.org/2000/svg";
const HEIGHT = 380; // of the neurons, below their titles
const TOP = 34;
const MAX_COLUMN = 190; // from layer to layer
const MAX_INPUT = 112; // width of the image on the left
const NAMES = 36; // width of the names of classes on the right
const MAX_SHOWN = 20; // neurons of a layer; of more, the most influential
const MAX_LINES = 60; // between two layers; of more, the strongest

const css = (value) => `rgb(${signed(value).join(" ")})`;

const make = (name, attributes) => {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
};

export class Diagram {
  #svg;
  #onPoint;
  #onPress;
  #back = make("g", {}); // the image, lines and titles, drawn anew each time
  #front = make("g", {}); // the neurons, which stay, so that the focus does
  #neurons = new Map(); // "layer.neuron" -> its <g>

  constructor(svg, { onPoint, onPress, onResize }) {
    this.#svg = svg;
    svg.append(this.#back, this.#front);
    this.#onPoint = onPoint;
    this.#onPress = onPress;
    for (const event of ["pointerover", "focusin"]) {
      svg.addEventListener(event, ({ target }) => this.#ofNeuron(target, this.#onPoint));
    }
    new ResizeObserver(onResize).observe(svg);
    svg.addEventListener("click", ({ target, pointerType }) => {
      // A finger cannot point without pressing: it has a button instead.
      if (pointerType !== "touch") this.#ofNeuron(target, this.#onPress);
    });
    svg.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      this.#ofNeuron(event.target, this.#onPress);
    });
  }

  clear() {
    this.#back.replaceChildren();
    this.#front.replaceChildren();
    this.#neurons.clear();
  }

  /**
   * Draws the network with what `forward` returned of it.
   *
   * @param seen The canvas with the image that the network sees.
   * @param pointed [layer, neuron] whose lines stand out, or null.
   */
  draw(network, passes, classes, seen, pointed) {
    const shown = passes.map((_, index) => mostInfluential(network, passes, index));
    const { clientWidth } = this.#svg;
    const input = Math.min(MAX_INPUT, clientWidth / 5);
    const column = Math.min(MAX_COLUMN, (clientWidth - input - NAMES) / passes.length);
    const left = (clientWidth - input - NAMES - column * passes.length) / 2;
    const place = (index, position) => ({
      x: left + input + column * (index + 0.8),
      y: TOP + (HEIGHT * (position + 0.5)) / shown[index].length,
    });
    const lines = make("g", { class: "lines" });
    for (let index = 1; index < passes.length; index++) {
      for (const line of strongest(network, passes, index, shown, pointed)) {
        const [from, to] = [place(index - 1, line.from), place(index, line.to)];
        lines.append(
          make("line", {
            x1: from.x, y1: from.y, x2: to.x, y2: to.y,
            class: line.value < 0 ? "minus" : "plus",
            "stroke-width": (0.4 + 3.6 * line.strength).toFixed(2),
            "stroke-opacity": ((0.12 + 0.88 * line.strength) * (line.isFaint ? 0.25 : 1)).toFixed(2),
          }),
        );
      }
    }
    const neurons = shown.flatMap((chosen, index) => {
      const scale = Math.max(1e-9, ...chosen.map((neuron) => Math.abs(passes[index].outputs[neuron])));
      return chosen.map((neuron, position) =>
        this.#neuron(network, passes, index, neuron, {
          ...place(index, position),
          radius: Math.min(11, HEIGHT / chosen.length / 2 - 1),
          shade: passes[index].outputs[neuron] / (index === passes.length - 1 ? 1 : scale),
          name: index === passes.length - 1 ? classes[neuron] : "",
          isPointed: pointed?.[0] === index && pointed[1] === neuron,
        }),
      );
    });
    const titles = shown.map((chosen, index) => {
      const { outputs, activation } = network.layers[index];
      const count = chosen.length < outputs ? `${chosen.length} of ${outputs}` : outputs;
      const title = make("text", { x: place(index, 0).x, y: 16, class: "title" });
      title.textContent = `${activation}, ${count}`;
      return title;
    });
    const rays = shown[0].map((_, position) => {
      const { x, y } = place(0, position);
      return make("line", { x1: left + input, y1: TOP + HEIGHT / 2, x2: x, y2: y, class: "ray" });
    });
    const image = make("image", { x: left, y: TOP + (HEIGHT - input) / 2, width: input, height: input });
    image.setAttribute("href", seen.toDataURL());
    const caption = make("text", { x: left + input / 2, y: TOP - 10 + (HEIGHT - input) / 2, class: "title" });
    caption.textContent = `${network.layers[0].inputs} pixels`;
    this.#back.replaceChildren(...rays, image, caption, lines, ...titles);
    const before = [...this.#front.children];
    if (neurons.some((neuron, position) => neuron !== before[position])) this.#front.replaceChildren(...neurons);
  }

  #neuron(network, passes, index, neuron, { x, y, radius, shade, name, isPointed }) {
    const key = `${index}.${neuron}`;
    const isOff = network.off[index].has(neuron);
    if (!this.#neurons.has(key)) {
      const group = make("g", { tabindex: 0, role: "button", "data-layer": index, "data-neuron": neuron });
      group.append(make("circle", {}), make("text", { class: "name" }));
      this.#neurons.set(key, group);
    }
    const group = this.#neurons.get(key);
    const value = passes[index].outputs[neuron];
    group.setAttribute("aria-pressed", isOff);
    const called = name ? `class ${name}` : `neuron ${neuron + 1} of layer ${index + 1}`;
    group.setAttribute("aria-label", `${called}, ${isOff ? "off" : value.toFixed(3)}`);
    group.setAttribute("class", `neuron${isOff ? " off" : ""}${isPointed ? " pointed" : ""}`);
    const [circle, text] = group.children;
    for (const [attribute, set] of Object.entries({ cx: x, cy: y, r: radius, fill: css(isOff ? 0 : shade) })) {
      circle.setAttribute(attribute, set);
    }
    text.setAttribute("x", x + 18);
    text.setAttribute("y", y + 4);
    text.textContent = name;
    return group;
  }

  #ofNeuron(target, then) {
    const group = target.closest?.(".neuron");
    if (group) then(Number(group.dataset.layer), Number(group.dataset.neuron));
  }
}

/** Returns the neurons of a layer that are shown, rising: all, or those that add most to the next. */
function mostInfluential(network, passes, index) {
  const { outputs } = network.layers[index];
  const all = Array.from({ length: outputs }, (_, neuron) => neuron);
  if (outputs <= MAX_SHOWN) return all;
  const next = network.layers[index + 1];
  const influence = all.map((neuron) => {
    if (network.off[index].has(neuron)) return Infinity; // or it could not be turned on again
    if (!next) return passes[index].outputs[neuron];
    let sum = 0;
    for (let j = 0; j < next.outputs; j++) sum += network.weight(index + 1, neuron, j) ** 2;
    return Math.abs(passes[index].outputs[neuron]) * Math.sqrt(sum);
  });
  return all.sort((a, b) => influence[b] - influence[a]).slice(0, MAX_SHOWN).sort((a, b) => a - b);
}

/** Returns the lines to a layer that carry most, what a neuron puts out times the weight, and those of a neuron. */
function strongest(network, passes, index, shown, pointed) {
  const isPointed = (layer, neuron) => pointed?.[0] === layer && pointed[1] === neuron;
  const lines = shown[index].flatMap((to, toPosition) =>
    shown[index - 1].map((from, fromPosition) => ({
      from: fromPosition,
      to: toPosition,
      value: passes[index - 1].outputs[from] * network.weight(index, from, to),
      isPointed: isPointed(index, to) || isPointed(index - 1, from),
    })),
  );
  lines.sort((a, b) => Math.abs(b.value) - Math.abs(a.value));
  const largest = Math.abs((lines.find((line) => line.isPointed) ?? lines[0])?.value) || 1;
  return lines
    .filter((line, rank) => line.isPointed || rank < MAX_LINES)
    .map((line) => ({ ...line, strength: Math.min(1, Math.abs(line.value) / largest), isFaint: pointed && !line.isPointed }))
    .filter((line) => line.strength > 0.02);
}
