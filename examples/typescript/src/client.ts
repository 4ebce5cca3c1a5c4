// Client of Predict with gRPC's own packages; its types are made from the .proto file.

import { fileURLToPath } from "node:url";

import * as grpc from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";

import type { GetModelResponse__Output } from "./generated/mlpserve/v1/GetModelResponse.js";
import type { PredictResponse__Output } from "./generated/mlpserve/v1/PredictResponse.js";
import type { PredictionServiceClient } from "./generated/mlpserve/v1/PredictionService.js";
import type { ProtoGrpcType } from "./generated/prediction.js";

const TIMEOUT_MS = 5000;
// All rpcs are idempotent: a call that finds no server is tried again, for about two seconds.
const RETRIES = JSON.stringify({
  methodConfig: [
    {
      name: [{ service: "mlpserve.v1.PredictionService" }],
      retryPolicy: {
        maxAttempts: 5,
        initialBackoff: "0.1s",
        maxBackoff: "1s",
        backoffMultiplier: 2,
        retryableStatusCodes: ["UNAVAILABLE"],
      },
    },
  ],
});
// The repository's folder, seen from build/.
const PROTO_FOLDER = fileURLToPath(new URL("../../../proto", import.meta.url));

const definition = loadSync("mlpserve/v1/prediction.proto", {
  includeDirs: [PROTO_FOLDER],
  longs: Number,
  enums: String,
  defaults: true,
});
const { mlpserve } = grpc.loadPackageDefinition(definition) as unknown as ProtoGrpcType;

export interface Prediction {
  label: string;
  probability: number;
  model: string;
  version: number;
}

/** A client of one server; safe to share, to be closed when done. */
export class Client {
  readonly #stub: PredictionServiceClient;

  constructor(target: string) {
    this.#stub = new mlpserve.v1.PredictionService(target, grpc.credentials.createInsecure(), {
      "grpc.service_config": RETRIES,
    });
  }

  /**
   * Classifies images.
   *
   * @param data One byte a value, image after image.
   * @param modelVersion The version that must answer; 0 leaves it to the server.
   * @throws A grpc.ServiceError, with `code` and `details`.
   */
  async predict(data: Uint8Array, modelVersion = 0): Promise<Prediction[]> {
    const described = await call<GetModelResponse__Output>((done) =>
      this.#stub.GetModel({}, options(), done),
    );
    const { classLabels, inputShape } = described.model!.versions[0]!;
    const valuesPerImage = inputShape.reduce((product, size) => product * size, 1);
    const count = Math.floor(data.length / valuesPerImage);
    const images = { count, dataType: "DATA_TYPE_UINT8", data: Buffer.from(data) } as const;
    const answer = await call<PredictResponse__Output>((done) =>
      this.#stub.Predict({ modelVersion, images }, options(), done),
    );
    return Array.from({ length: count }, (_, image) => {
      const label = answer.labels.readInt32LE(4 * image);
      return {
        label: classLabels[label]!,
        probability: answer.probabilities.readFloatLE(4 * (image * classLabels.length + label)),
        model: answer.modelName,
        version: answer.modelVersion,
      };
    });
  }

  close(): void {
    this.#stub.close();
  }
}

const options = () => ({ deadline: Date.now() + TIMEOUT_MS });

/** Turns a call that ends in a callback into a promise. */
function call<Response>(start: (done: grpc.requestCallback<Response>) => void): Promise<Response> {
  return new Promise((resolve, reject) =>
    start((error, response) => (error ? reject(error) : resolve(response!))),
  );
}
