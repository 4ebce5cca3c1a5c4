// The drawing area: strokes of mouse, finger, pen or keyboard, and pictures that are put on it.

const PEN = 22; // pixels of the canvas
const KEY_STEP = 8;
// What is sent has half the canvas's width: enough for 28 x 28, and a quarter of the bytes.
const SENT = 140;

export class Pad {
  #canvas;
  #context;
  #onChange;
  #last = null; // where the pen was
  #cursor = { x: 140, y: 60, isDown: false };

  constructor(canvas, onChange) {
    this.#canvas = canvas;
    this.#context = canvas.getContext("2d", { willReadFrequently: true });
    this.#onChange = onChange;
    this.clear();
    canvas.addEventListener("pointerdown", (event) => this.#begin(event));
    canvas.addEventListener("pointermove", (event) => this.#move(event));
    for (const end of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(end, () => (this.#last = null));
    }
    canvas.addEventListener("keydown", (event) => this.#key(event));
    canvas.addEventListener("blur", () => (this.#cursor.isDown = false));
  }

  clear() {
    this.#context.fillStyle = "black";
    this.#context.fillRect(0, 0, this.#canvas.width, this.#canvas.height);
    this.#cursor.isDown = false;
  }

  /** Puts a picture on the pad, as large as fits. */
  show(picture, { isSmooth }) {
    this.clear();
    const { width, height } = this.#canvas;
    const scale = Math.min(width / picture.width, height / picture.height);
    const [w, h] = [picture.width * scale, picture.height * scale];
    this.#context.imageSmoothingEnabled = isSmooth;
    this.#context.drawImage(picture, (width - w) / 2, (height - h) / 2, w, h);
  }

  /** Returns the drawing as {width, height, bytes}, one byte of grey a pixel. */
  picture() {
    const small = new OffscreenCanvas(SENT, SENT).getContext("2d");
    small.drawImage(this.#canvas, 0, 0, SENT, SENT);
    return greyOf(small.getImageData(0, 0, SENT, SENT));
  }

  isEmpty() {
    const { data } = this.#context.getImageData(0, 0, this.#canvas.width, this.#canvas.height);
    return data.every((value, index) => index % 4 === 3 || value === data[index % 4]);
  }

  #begin(event) {
    if (event.button > 0) return;
    event.preventDefault();
    this.#canvas.focus({ preventScroll: true });
    this.#canvas.setPointerCapture(event.pointerId);
    this.#last = this.#place(event);
    this.#stroke(this.#last);
  }

  #move(event) {
    if (!this.#last) return;
    // Between two frames a pen moves several times; each place counts.
    const events = event.getCoalescedEvents?.() ?? [];
    for (const one of events.length ? events : [event]) this.#stroke(this.#place(one));
  }

  #place(event) {
    const box = this.#canvas.getBoundingClientRect();
    return {
      x: ((event.clientX - box.left) / box.width) * this.#canvas.width,
      y: ((event.clientY - box.top) / box.height) * this.#canvas.height,
    };
  }

  #stroke(to) {
    const from = this.#last ?? to;
    const context = this.#context;
    context.strokeStyle = "white";
    context.lineWidth = PEN;
    context.lineCap = context.lineJoin = "round";
    context.beginPath();
    context.moveTo(from.x, from.y);
    context.lineTo(to.x, to.y);
    context.stroke();
    this.#last = to;
    this.#onChange();
  }

  #key(event) {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    const cursor = this.#cursor;
    if (event.key === " ") cursor.isDown = !cursor.isDown;
    else if (step) {
      this.#last = { x: cursor.x, y: cursor.y };
      cursor.x = Math.min(this.#canvas.width, Math.max(0, cursor.x + KEY_STEP * step[0]));
      cursor.y = Math.min(this.#canvas.height, Math.max(0, cursor.y + KEY_STEP * step[1]));
    } else return;
    event.preventDefault();
    if (cursor.isDown) this.#stroke({ x: cursor.x, y: cursor.y });
    this.#last = null;
  }
}

/** Returns an ImageData as grey bytes. */
export function greyOf({ data, width, height }) {
  const bytes = new Uint8Array(width * height);
  for (let pixel = 0; pixel < bytes.length; pixel++) {
    const [red, green, blue] = data.subarray(4 * pixel, 4 * pixel + 3);
    bytes[pixel] = Math.round(0.299 * red + 0.587 * green + 0.114 * blue);
  }
  return { width, height, bytes };
}

/** Draws values on a canvas, one pixel each; `colour` makes [red, green, blue] of a value. */
export function paint(canvas, values, width, height, colour) {
  canvas.width = width;
  canvas.height = height;
  const image = new ImageData(width, height);
  values.forEach((value, pixel) => image.data.set([...colour(value), 255], 4 * pixel));
  canvas.getContext("2d").putImageData(image, 0, 0);
}
