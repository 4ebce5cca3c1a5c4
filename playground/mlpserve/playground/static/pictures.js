// Pictures that a visitor brings: read only when they are some, and not too large.

const MAX_PIXELS = 50e6;
const MAX_BYTES = 50e6;
const SIDE = 280; // of the pad

/**
 * Listens for pictures that are opened, dropped or pasted.
 *
 * @param onPicture Gets what `readPicture` returns.
 * @param onRefusal Gets the error that says why there is no picture.
 */
export function listenForPictures(input, { onPicture, onRefusal }) {
  const take = async (files, absence) => {
    try {
      if (!files.length) throw new Error(absence);
      const read = await readPicture(files[0]);
      const others = files.length > 1 ? `Of ${files.length} files the first is shown: ${files[0].name}. ` : "";
      onPicture({ ...read, remark: others + read.remark });
    } catch (error) {
      onRefusal(error);
    }
  };
  input.addEventListener("change", async () => {
    if (input.files.length) await take([...input.files]);
    input.value = ""; // so that the same file can be opened again
  });
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => {
    event.preventDefault();
    take([...event.dataTransfer.files], "What was dropped is no file of a picture.");
  });
  addEventListener("paste", ({ target, clipboardData }) => {
    if (!target.closest?.("input, textarea")) take([...clipboardData.files], "The clipboard holds no picture.");
  });
}

/**
 * Returns {picture, paper, remark}: a canvas with the picture, turned as it says and as large as the
 * pad at most, the colour behind it, and what is to be said of it.
 *
 * @throws {Error} It is no picture, or too large.
 */
async function readPicture(file) {
  const name = file.name || "What was pasted";
  if (!file.type.startsWith("image/")) throw new Error(`${name} is no picture.`);
  if (file.size > MAX_BYTES) throw new Error(`${name} has ${Math.round(file.size / 1e6)} MB: expected at most 50.`);
  const address = URL.createObjectURL(file);
  try {
    const picture = new Image();
    picture.src = address;
    await loaded(picture, name);
    return { ...reduced(picture), remark: (await isAnimated(file)) ? `${name} moves: its first frame is shown.` : "" };
  } finally {
    URL.revokeObjectURL(address);
  }
}

/** Waits for the header of a picture; its pixels are decoded only when it is drawn. */
async function loaded(picture, name) {
  await new Promise((resolve, reject) => Object.assign(picture, { onload: resolve, onerror: reject })).catch(() => {
    throw new Error(`${name} cannot be read as a picture.`);
  });
  const { naturalWidth: width, naturalHeight: height } = picture;
  if (!width || !height) throw new Error(`${name} does not say how large it is.`);
  if (width * height > MAX_PIXELS) {
    throw new Error(`${name} has ${width} × ${height} pixels: expected at most 50 million.`);
  }
}

function reduced(picture) {
  const { naturalWidth: width, naturalHeight: height } = picture;
  const scale = Math.min(1, SIDE / Math.max(width, height));
  const canvas = new OffscreenCanvas(Math.max(1, width * scale), Math.max(1, height * scale));
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.imageSmoothingQuality = "high";
  context.drawImage(picture, 0, 0, canvas.width, canvas.height);
  return { picture: canvas, paper: paperOf(context.getImageData(0, 0, canvas.width, canvas.height)) };
}

/** Returns the colour behind a picture: its border's or, if it is transparent, what its ink stands out from. */
function paperOf({ data, width, height }) {
  const [border, ink] = [[], []];
  let isTransparent = false;
  for (let pixel = 0; pixel < width * height; pixel++) {
    const [red, green, blue, alpha] = data.subarray(4 * pixel, 4 * pixel + 4);
    const [x, y, grey] = [pixel % width, Math.floor(pixel / width), 0.299 * red + 0.587 * green + 0.114 * blue];
    if (alpha > 127) ink.push(grey);
    else isTransparent = true;
    if (x === 0 || y === 0 || x === width - 1 || y === height - 1) border.push(grey);
  }
  const mean = (values) => values.reduce((a, b) => a + b, 0) / Math.max(1, values.length);
  if (isTransparent) return mean(ink) < 128 ? "white" : "black";
  const grey = Math.round(mean(border));
  return `rgb(${grey} ${grey} ${grey})`;
}

async function isAnimated(file) {
  if (!("ImageDecoder" in globalThis)) return false;
  try {
    const decoder = new ImageDecoder({ data: await file.arrayBuffer(), type: file.type });
    await decoder.tracks.ready;
    return decoder.tracks.selectedTrack.animated;
  } catch {
    return false; // of a kind that only <img> knows
  }
}
