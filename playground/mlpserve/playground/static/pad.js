// The drawing area: strokes of mouse, finger, pen or keyboard, and pictures that are put on it.

import { greyOf } from "./pixels.js";

const PEN = 22; // pixels of the canvas
const KEY_STEP = 8;
// What is sent has half the canvas's width: enough for 28 x 28, and a quarter of the bytes.
const SENT = 140;
// Around a drawing, since preparation takes what touches the border for no digit.
const MARGIN = 10;

export class Pad {
  #canvas;
  #context;
  #cursor;
  #onChange;
  #isDrawing = true; // and no picture
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
    return "empty" in this.#canvas.dataset;
  }

  set #isEmpty(isEmpty) {
    this.#canvas.toggleAttribute("data-empty", isEmpty);
  }

  clear(paper = "black") {
    this.#context.fillStyle = paper;
    this.#context.fillRect(0, 0, this.#canvas.width, this.#canvas.height);
    this.#isEmpty = true;
    this.#isDrawing = true;
    this.#moveKey({ isDown: false });
  }

  /** Puts a picture on the pad, as large as fits, on paper of a colour. */
  show({ picture, paper, isSmooth = true }) {
    const { width, height } = this.#canvas;
    const scale = Math.min(width / picture.width, height / picture.height);
    const [w, h] = [picture.width * scale, picture.height * scale];
    this.clear(paper);
    this.#context.imageSmoothingEnabled = isSmooth;
    this.#context.drawImage(picture, (width - w) / 2, (height - h) / 2, w, h);
    this.#isEmpty = false;
    this.#isDrawing = false;
  }

  /** Returns what is on the pad as {width, height, bytes}, one byte of grey a pixel. */
  picture() {
    return this.#reduced(SENT, SENT, this.#isDrawing ? MARGIN : 0);
  }

  /** Returns the same in the size that a network takes. */
  pictureOf(height, width) {
    return this.#reduced(height, width, 0);
  }

  #reduced(height, width, margin) {
    const whole = [width + 2 * margin, height + 2 * margin];
    const context = new OffscreenCanvas(...whole).getContext("2d", { willReadFrequently: true });
    context.imageSmoothingQuality = "high";
    context.drawImage(this.#canvas, margin, margin, width, height);
    return greyOf(context.getImageData(0, 0, ...whole));
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
