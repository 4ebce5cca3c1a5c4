// Tests of the client against the server of MLPSERVE_TARGET, which serves a model of digits.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, test } from "node:test";
import { fileURLToPath } from "node:url";

import { status } from "@grpc/grpc-js";

import { Client } from "./client.js";

const DIGIT = readFileSync(fileURLToPath(new URL("../../digit.bin", import.meta.url)));
const client = new Client(process.env.MLPSERVE_TARGET ?? "localhost:50051");
after(() => client.close());

test("each image of a batch gets a label and its probability", async () => {
  const predictions = await client.predict(Buffer.concat([DIGIT, DIGIT]));
  assert.equal(predictions.length, 2);
  assert.deepEqual(predictions[0], predictions[1]);
  assert.match(predictions[0]!.label, /^\d$/);
  assert.ok(predictions[0]!.probability > 0.1 && predictions[0]!.probability <= 1);
});

test("a version that is not served is an error with a status", async () => {
  await assert.rejects(client.predict(DIGIT, 99), { code: status.NOT_FOUND });
});

test("bytes that are no whole images are refused with what was expected", async () => {
  await assert.rejects(client.predict(Buffer.concat([DIGIT, Buffer.alloc(1)])), {
    code: status.INVALID_ARGUMENT,
    details: /expected 784 bytes.*785/,
  });
});
