// Test images: a visitor steps through them, and the page's address brings one back with its caption.

import { packed } from "./address.js";
import * as server from "./server.js";

const caption = document.getElementById("truth");
let shown = -1;
let bytes = [];

/** Returns which test image an image is, if it is the one that is shown; null if not. */
export const numberOf = (image) => (shown >= 0 && image?.every((value, i) => value === bytes[i]) ? shown : null);

/** Says that no test image is shown any more, but something of which there may be a remark. */
export function leave(remark = "") {
  shown = -1;
  caption.textContent = remark;
}

/** Shows the test image that comes so many after the one that is shown; `show` gets its bytes. */
export async function step(by, show) {
  const wanted = Math.max(0, shown + by);
  if (shown < 0) caption.textContent = "Loading the test images.";
  const found = await server.example(wanted).finally(() => (caption.textContent = ""));
  show(Uint8Array.from(found.image));
  describe(wanted, found.image, found);
}

/** Says again of an image which one it is; not of another, as where there is other test data. */
export async function recognize(wanted, image, isStale) {
  if (!/^\d{1,9}$/.test(wanted)) return;
  const found = await server.example(Number(wanted));
  if (!isStale() && packed(found.image) === packed(image)) describe(Number(wanted), image, found);
}

function describe(wanted, image, { label, data, count }) {
  [shown, bytes] = [wanted, image];
  caption.textContent = `Image ${(wanted % count) + 1} of ${count} of ${data}: a ${label}.`;
}
