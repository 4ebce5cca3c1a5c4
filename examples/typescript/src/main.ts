// npm start -- TARGET FILE [VERSION]: classifies the images of a file, one byte a value.

import { readFileSync } from "node:fs";

import { status, type ServiceError } from "@grpc/grpc-js";

import { Client } from "./client.js";

const [target = "localhost:50051", file = "../digit.bin", version = "0"] = process.argv.slice(2);
const client = new Client(target);
try {
  const predictions = await client.predict(readFileSync(file), Number(version));
  for (const [image, { label, probability, model, version }] of predictions.entries()) {
    const percent = (100 * probability).toFixed(2);
    console.log(`image ${image}: ${label} (${percent} %), ${model} version ${version}`);
  }
} catch (error) {
  const { code, details } = error as ServiceError;
  console.error(`${status[code]}: ${details}`);
  process.exitCode = 1;
} finally {
  client.close();
}
