// Client of Predict for Node.js, with gRPC's own packages and the .proto file.
//
//   npm install @grpc/grpc-js @grpc/proto-loader
//   node examples/predict.mjs localhost:50051

import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

import grpc from "@grpc/grpc-js";
import protoLoader from "@grpc/proto-loader";

const TIMEOUT_MS = 5000;

const protoFolder = fileURLToPath(new URL("../proto", import.meta.url));
const definition = protoLoader.loadSync("mlpserve/v1/prediction.proto", {
  includeDirs: [protoFolder],
  longs: Number,
});
const { PredictionService } = grpc.loadPackageDefinition(definition).mlpserve.v1;

const client = new PredictionService(process.argv[2], grpc.credentials.createInsecure());
const call = (method, request) =>
  promisify(client[method]).call(client, request, new grpc.Metadata(), {
    deadline: Date.now() + TIMEOUT_MS,
  });

const { model } = await call("GetModel", {});
const { classLabels, inputShape } = model.versions[0];
const valuesPerImage = inputShape.reduce((product, size) => product * size, 1);
const count = 2;
const response = await call("Predict", {
  images: { count, dataType: "DATA_TYPE_UINT8", data: Buffer.alloc(count * valuesPerImage) },
});

for (let image = 0; image < count; image++) {
  const label = response.labels.readInt32LE(4 * image);
  const position = 4 * (image * classLabels.length + label);
  const probability = response.probabilities.readFloatLE(position);
  console.log(
    `image ${image}: ${classLabels[label]} (${(100 * probability).toFixed(2)} %), ` +
      `${response.modelName} version ${response.modelVersion}`,
  );
}
client.close();
