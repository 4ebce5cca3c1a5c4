// All versions that are served, side by side on the same image.

import { percent } from "./answer.js";
import * as server from "./server.js";

const rows = document.getElementById("version-rows");
const COLUMNS = { time: 6, says: 7 };

export const reportOf = (model, version) => `/report/${encodeURIComponent(model)}/${version}`;

/** Chooses a model and a version in the page's head, or those that the server would, if these are not served. */
export function choose(models, name, number) {
  fill("model", models.map(({ name }) => name), name);
  const { versions, defaultVersion } = models.find(({ name }) => name === document.getElementById("model").value);
  fill("version", versions.map(({ version }) => String(version)), number, String(defaultVersion));
}

function fill(id, options, ...wanted) {
  const select = document.getElementById(id);
  select.replaceChildren(...options.map((text) => new Option(text)));
  select.value = wanted.find((one) => options.includes(one)) ?? options[0];
}

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
  heading.append(linkTo(`#${new URLSearchParams({ model, version: one.version })}`, title, `Show version ${title}`));
  row.append(heading);
  for (const text of cells) row.insertCell().textContent = text;
  const report = row.insertCell();
  if (one.hasReport) report.append(linkTo(reportOf(model, one.version), "report", `Report of version ${title}`));
  return row;
}

function linkTo(address, text, label) {
  const link = document.createElement("a");
  link.href = address;
  link.textContent = text;
  link.setAttribute("aria-label", label);
  return link;
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
    rows.rows[index].classList.toggle("chosen", isChosen);
    try {
      const said = isChosen ? answer : await server.predict(same, name, one.version);
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
