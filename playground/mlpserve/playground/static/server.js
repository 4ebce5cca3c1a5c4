// Calls of the playground's server, and the rule that the newest picture wins.

const TIMEOUT_MS = 8000; // longer than the playground waits for the server

/** Calls the playground; where it may take a minute, as with data that must be fetched first, without a timeout. */
export async function ask(path, options = {}) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Error("The playground does not answer. The page keeps what is drawn and tries again.");
  }
  const answer = await response.json().catch(() => null);
  if (!response.ok) throw new Error(answer?.error ?? `The server said ${response.status}.`);
  return answer;
}

const askSoon = (path, options) => ask(path, { ...options, signal: AbortSignal.timeout(TIMEOUT_MS) });
const query = (parameters) => new URLSearchParams(parameters);

/**
 * Classifies a picture, {width, height, bytes}, by one version.
 *
 * @param side Of the image that it is prepared as, in the form of MNIST's digits; 0 leaves it as it is.
 */
export const predict = ({ width, height, bytes }, model, version, side = 0) =>
  askSoon(`/api/predict?${query({ width, height, model, version, prepare: side })}`, {
    method: "POST",
    body: bytes,
    headers: { "Content-Type": "application/octet-stream" },
  });

/** Asks what each pixel of an image added to the logit of a class. */
export const explain = (image, model, version, label) =>
  askSoon(`/api/explain?${query({ model, version, class: label })}`, {
    method: "POST",
    body: Uint8Array.from(image),
    headers: { "Content-Type": "application/octet-stream" },
  });

export const models = () => askSoon("/api/models");
export const example = (number) => ask(`/api/example?${query({ number })}`);
export const network = (model, version) => askSoon(`/api/network?${query({ model, version })}`);

/** Runs a job for the newest input only: one at a time, and what came meanwhile but the last is left out. */
export class Newest {
  #job;
  #waiting = null;
  #isBusy = false;

  constructor(job) {
    this.#job = job;
  }

  async want(input) {
    this.#waiting = { input };
    if (this.#isBusy) return;
    this.#isBusy = true;
    try {
      while (this.#waiting) {
        const { input: newest } = this.#waiting;
        this.#waiting = null;
        await this.#job(newest);
      }
    } finally {
      this.#isBusy = false;
    }
  }
}
