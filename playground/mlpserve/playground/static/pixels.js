// Pixels: grey bytes of a picture, and values drawn as a picture.

/** Returns [red, green, blue]: blue for -1 over nearly black for 0 to orange for 1. */
export function signed(value) {
  const strength = Math.min(1, Math.abs(value)) ** 0.7;
  const [full, none] = [value < 0 ? [63, 140, 255] : [255, 140, 26], [24, 28, 36]];
  return full.map((channel, index) => Math.round(none[index] + (channel - none[index]) * strength));
}

export const grey = (value) => [value, value, value];

/** Returns the brightness of a canvas as {width, height, bytes}, one byte a pixel. */
export function greyOf({ data, width, height }) {
  const bytes = new Uint8Array(width * height);
  for (let pixel = 0; pixel < bytes.length; pixel++) {
    const [red, green, blue] = data.subarray(4 * pixel, 4 * pixel + 3);
    bytes[pixel] = Math.round(0.299 * red + 0.587 * green + 0.114 * blue);
  }
  return { width, height, bytes };
}

/** Draws values on a canvas, one pixel each; `colour` makes [red, green, blue] of a value. */
export function paint(canvas, values, [height, width], colour) {
  canvas.width = width;
  canvas.height = height;
  const image = new ImageData(width, height);
  values.forEach((value, pixel) => image.data.set([...colour(value), 255], 4 * pixel));
  canvas.getContext("2d").putImageData(image, 0, 0);
}

/** Draws values of either sign, in relation to the largest. */
export function paintSigned(canvas, values, shape) {
  const largest = values.reduce((most, value) => Math.max(most, Math.abs(value)), 1e-9);
  paint(canvas, values, shape, (value) => signed(value / largest));
}
