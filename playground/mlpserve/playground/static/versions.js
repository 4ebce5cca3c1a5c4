// All versions that are served, side by side on the same image.

import { percent } from "./answer.js";
import * as server from "./server.js";

const rows = document.getElementById("version-rows");
const COLUMNS = { time: 6, says: 7 };

export const reportOf = (model, version) => `/report/${encodeURIComponent(model)}/${version}`;

/** Lists the versions of all models. */
export function listVersions(models) {
  rows.replaceChildren(
    ...models.flatMap(({ name, versions }) =>
      versions.map((one) => rowOf(name, one, models.length > 1 ? `${name} ${one.version}` : one.version)),
    ),
  );
}

function rowOf(model, one, title) {
  const row = document.createElement("tr");
  const size = one.weightsBytes === null ? "" : `${Math.round(one.weightsBytes / 1024)} KiB`;
  const cells = [one.layerSizes.join("-"), one.recipe, one.data, percent(one.testAccuracy, 2), size, "", ""];
  const heading = document.createElement("th");
  heading.scope = "row";
  heading.textContent = title;
  row.append(heading);
  for (const text of cells) row.insertCell().textContent = text;
  const report = row.insertCell();
  if (one.hasReport) {
    const link = document.createElement("a");
    link.href = reportOf(model, one.version);
    link.textContent = "report";
    link.setAttribute("aria-label", `Report of version ${title}`);
    report.append(link);
  }
  return row;
}

/**
 * Asks every version about the image that one has answered.
 *
 * @param isStale Returns whether the image is no longer the newest.
 */
export async function compare(models, answer, { inputShape }, isStale) {
  const [height, width] = inputShape;
  const same = { width, height, bytes: Uint8Array.from(answer.image) };
  const all = models.flatMap(({ name, versions }) => versions.map((one) => ({ name, one })));
  for (const [index, { name, one }] of all.entries()) {
    const cells = rows.rows[index]?.cells;
    if (!cells || isStale()) return;
    const isChosen = name === answer.model && one.version === answer.version;
    try {
      const said = isChosen ? answer : await server.predict(same, name, one.version, true);
      cells[COLUMNS.time].textContent = `${said.milliseconds.toFixed(1)} ms`;
      cells[COLUMNS.says].textContent = `${one.classes[said.label]} (${percent(said.probabilities[said.label])})`;
    } catch {
      cells[COLUMNS.time].textContent = "";
      const fits = String(one.inputShape) === String(inputShape);
      cells[COLUMNS.says].textContent = fits ? "no answer" : `takes ${one.inputShape.join(" × ")} pixels`;
    }
  }
}

export function compareNothing() {
  for (const { cells } of rows.rows) cells[COLUMNS.time].textContent = cells[COLUMNS.says].textContent = "";
}
