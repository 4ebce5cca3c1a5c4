// The address of the page holds what is shown, so that it can be sent to somebody.

// Browsers limit how often a page may change its address.
const WAIT_MS = 300;
let waiting;

export const read = () => new URLSearchParams(location.hash.slice(1));

/** Keeps what is shown: the version, the image, which test image it is, and what is broken of the network. */
export function keep({ model, version, image, example, network }) {
  const kept = new URLSearchParams({ model, version });
  const off = network?.off.flatMap((layer, index) => [...layer].map((neuron) => `${index}.${neuron}`));
  if (off?.length) kept.set("off", off.join());
  if (network?.noise) kept.set("noise", network.noise);
  if (image) kept.set("image", packed(image));
  if (image && example !== null) kept.set("example", example);
  clearTimeout(waiting);
  waiting = setTimeout(() => history.replaceState(null, "", `#${kept}`), WAIT_MS);
}

/** Breaks a network as the address says. */
export function breakAs(kept, network) {
  network.noise = Math.min(2, Math.max(0, Number(kept.get("noise")) || 0));
  for (const neuron of (kept.get("off") ?? "").split(",").filter(Boolean)) {
    const [layer, number] = neuron.split(".").map(Number);
    if (number < network.layers[layer]?.outputs) network.off[layer].add(number);
  }
}

/** Returns an image as text: 16 shades are enough to be classified the same, so two pixels make a byte. */
export function packed(image) {
  const bytes = Array.from({ length: Math.ceil(image.length / 2) }, (_, index) => {
    return ((image[2 * index] >> 4) << 4) | ((image[2 * index + 1] ?? 0) >> 4);
  });
  return btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_");
}

/** Returns the image of such text as {width, height, bytes}. */
export function unpacked(text, [height, width]) {
  try {
    const pairs = atob(text.replaceAll("-", "+").replaceAll("_", "/"));
    if (pairs.length !== Math.ceil((height * width) / 2)) throw new RangeError(pairs.length);
    const bytes = Uint8Array.from({ length: height * width }, (_, pixel) => {
      const pair = pairs.charCodeAt(pixel >> 1);
      return 17 * (pixel % 2 ? pair & 15 : pair >> 4);
    });
    return { height, width, bytes };
  } catch {
    throw new Error(`The image in this page's address is damaged, or has another size than ${width} × ${height}.`);
  }
}
