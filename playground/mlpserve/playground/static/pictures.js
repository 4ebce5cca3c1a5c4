// Pictures that a visitor brings: read only when they are some, and not too large.

const MAX_PIXELS = 40e6;

/**
 * Returns a picture that can be drawn on a canvas, turned as it says.
 *
 * Only the picture's header is read here; its pixels are decoded when it is drawn.
 *
 * @throws {Error} It is no picture, or too large.
 */
export async function readPicture(file) {
  const name = file.name || "What was pasted";
  if (!file.type.startsWith("image/")) throw new Error(`${name} is no picture.`);
  const picture = new Image();
  picture.src = URL.createObjectURL(file);
  try {
    await new Promise((resolve, reject) => Object.assign(picture, { onload: resolve, onerror: reject }));
  } catch {
    throw new Error(`${name} cannot be read as a picture.`);
  } finally {
    URL.revokeObjectURL(picture.src);
  }
  const { naturalWidth: width, naturalHeight: height } = picture;
  if (!width || !height) throw new Error(`${name} does not say how large it is.`);
  if (width * height > MAX_PIXELS) {
    throw new Error(`${name} has ${width} × ${height} pixels: expected at most 40 million.`);
  }
  return picture;
}
