// The network's forward pass: Z = W x + b and an activation, layer after layer, as the server does it.

const FUNCTIONS = {
  tanh: (sums) => sums.map(Math.tanh),
  relu: (sums) => sums.map((sum) => Math.max(0, sum)),
  sigmoid: (sums) => sums.map((sum) => 1 / (1 + Math.exp(-sum))),
  softmax(sums) {
    const largest = sums.reduce((a, b) => Math.max(a, b), -Infinity);
    const exponentials = sums.map((sum) => Math.exp(sum - largest));
    const total = exponentials.reduce((a, b) => a + b, 0);
    return exponentials.map((exponential) => exponential / total);
  },
};

const decoded = (text) => new Float32Array(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);

export class Network {
  #noise = []; // for each layer, one number of a normal distribution for each weight

  /** @param layers As /api/network describes them. */
  constructor(layers) {
    this.layers = layers.map((layer) => ({
      ...layer,
      weights: decoded(layer.weights), // (inputs, outputs), row by row
      bias: decoded(layer.bias),
    }));
    this.repair();
  }

  get isBroken() {
    return this.noise > 0 || this.off.some((layer) => layer.size > 0);
  }

  isOff(neuron) {
    return Boolean(neuron && this.off[neuron[0]].has(neuron[1]));
  }

  repair() {
    this.noise = 0;
    this.off = this.layers.map(() => new Set());
  }

  /** Returns the weight from input `i` to neuron `j` of a layer, with the noise that is on it. */
  weight(index, i, j) {
    const { weights, outputs } = this.layers[index];
    const position = i * outputs + j;
    if (!this.noise) return weights[position];
    this.#noise[index] ??= noiseLike(weights, index + 1);
    return weights[position] + this.noise * this.#noise[index][position];
  }

  /** Returns, for each layer, {sums, outputs}: Z and A, Float64Arrays. */
  forward(image) {
    let inputs = image;
    return this.layers.map((layer, index) => {
      const sums = Float64Array.from(layer.bias);
      for (let i = 0; i < layer.inputs; i++) {
        if (inputs[i] === 0) continue; // most of an image is black
        for (let j = 0; j < layer.outputs; j++) sums[j] += inputs[i] * this.weight(index, i, j);
      }
      const outputs = FUNCTIONS[layer.activation](sums);
      for (const neuron of this.off[index]) outputs[neuron] = 0;
      inputs = outputs;
      return { sums, outputs };
    });
  }
}

/** Returns normally distributed numbers with the standard deviation of the weights, from a seed. */
function noiseLike(weights, seed) {
  let state = seed;
  const uniform = () => {
    // mulberry32, a small generator of 32 bits.
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return (((mixed ^ (mixed >>> 14)) >>> 0) + 0.5) / 2 ** 32;
  };
  const mean = weights.reduce((a, b) => a + b, 0) / weights.length;
  const deviation = Math.sqrt(weights.reduce((a, b) => a + (b - mean) ** 2, 0) / weights.length);
  // Box and Muller's method: two uniform numbers make a normal one.
  return Float64Array.from(weights, () => {
    return deviation * Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform());
  });
}
