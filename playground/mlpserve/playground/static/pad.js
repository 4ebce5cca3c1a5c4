// The drawing area: strokes of mouse, finger, pen or keyboard, and pictures that are put on it.

import { greyOf } from "./pixels.js";

const PEN = 22; // pixels of the canvas
const KEY_STEP = 8;
// What is sent has half the canvas's width: enough for 28 x 28, and a quarter of the bytes.
const SENT = [140, 140];

export class Pad {
  #canvas;
  #context;
  #cursor;
  #onChange;
  #isEmpty = true;
  #pointer = null; // the mouse, finger or pen that draws; others are left out meanwhile
  #last = null; // where it was
  #key = { x: 140, y: 60, isDown: false };

  /** @param cursor An element that shows where the keyboard draws. */
  constructor(canvas, cursor, onChange) {
    this.#canvas = canvas;
    this.#cursor = cursor;
    this.#context = canvas.getContext("2d", { willReadFrequently: true });
    this.#onChange = onChange;
    this.clear();
    canvas.addEventListener("pointerdown", (event) => this.#begin(event));
    canvas.addEventListener("pointermove", (event) => this.#move(event));
    for (const end of ["pointerup", "pointercancel", "lostpointercapture"]) {
      canvas.addEventListener(end, ({ pointerId }) => pointerId === this.#pointer && (this.#pointer = null));
    }
    canvas.addEventListener("keydown", (event) => this.#press(event));
    canvas.addEventListener("blur", () => this.#moveKey({ isDown: false }));
  }

  get isEmpty() {
    return this.#isEmpty;
  }

  clear(colour = "black") {
    this.#context.fillStyle = colour;
    this.#context.fillRect(0, 0, this.#canvas.width, this.#canvas.height);
    this.#isEmpty = true;
    this.#moveKey({ isDown: false });
  }

  /** Puts a picture on the pad, as large as fits. */
  show(picture, { isSmooth }) {
    const { width, height } = this.#canvas;
    const scale = Math.min(width / picture.width, height / picture.height);
    const [w, h] = [picture.width * scale, picture.height * scale];
    this.clear();
    this.#context.imageSmoothingEnabled = isSmooth;
    this.#context.drawImage(picture, (width - w) / 2, (height - h) / 2, w, h);
    this.#isEmpty = false;
  }

  /** Returns the drawing as {width, height, bytes}, one byte of grey a pixel. */
  picture([height, width] = SENT) {
    const small = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
    small.imageSmoothingQuality = "high";
    small.drawImage(this.#canvas, 0, 0, width, height);
    return greyOf(small.getImageData(0, 0, width, height));
  }

  #begin(event) {
    if (event.button > 0 || this.#pointer !== null) return;
    this.#canvas.setPointerCapture(event.pointerId);
    this.#pointer = event.pointerId;
    this.#last = null;
    this.#stroke(this.#place(event));
  }

  #move(event) {
    if (event.pointerId !== this.#pointer) return;
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
    this.#isEmpty = false;
    this.#onChange();
  }

  #press(event) {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!step && event.key !== " ") return;
    event.preventDefault();
    const { x, y, isDown } = this.#key;
    if (!step) return this.#moveKey({ isDown: !isDown });
    const within = (value, end) => Math.min(end, Math.max(0, value));
    this.#moveKey({
      x: within(x + KEY_STEP * step[0], this.#canvas.width),
      y: within(y + KEY_STEP * step[1], this.#canvas.height),
    });
    if (!isDown) return;
    this.#last = { x, y };
    this.#stroke(this.#key);
  }

  #moveKey(changes) {
    Object.assign(this.#key, changes);
    this.#cursor.style.left = `${(100 * this.#key.x) / this.#canvas.width}%`;
    this.#cursor.style.top = `${(100 * this.#key.y) / this.#canvas.height}%`;
    this.#cursor.classList.toggle("down", this.#key.isDown);
  }
}
