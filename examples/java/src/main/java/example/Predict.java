package example;

import com.google.protobuf.ByteString;
import io.grpc.ManagedChannel;
import io.grpc.ManagedChannelBuilder;
import io.grpc.StatusRuntimeException;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import mlpserve.v1.DataType;
import mlpserve.v1.GetModelRequest;
import mlpserve.v1.ImageBatch;
import mlpserve.v1.ModelVersion;
import mlpserve.v1.PredictRequest;
import mlpserve.v1.PredictResponse;
import mlpserve.v1.PredictionServiceGrpc;
import mlpserve.v1.PredictionServiceGrpc.PredictionServiceBlockingStub;

/**
 * Client of Predict with gRPC's own packages: classifies the images of a file, one byte a value.
 *
 * <pre>mvn --quiet compile exec:java -Dexec.mainClass=example.Predict -Dexec.args="TARGET FILE"</pre>
 */
public final class Predict {
  private static final long TIMEOUT_S = 5;

  // All rpcs are idempotent: a call that finds no server is tried again, for about two seconds.
  private static final Map<String, ?> RETRIES =
      Map.of(
          "methodConfig",
          List.of(
              Map.of(
                  "name",
                  List.of(Map.of("service", "mlpserve.v1.PredictionService")),
                  "retryPolicy",
                  Map.of(
                      "maxAttempts", 5.0,
                      "initialBackoff", "0.1s",
                      "maxBackoff", "1s",
                      "backoffMultiplier", 2.0,
                      "retryableStatusCodes", List.of("UNAVAILABLE")))));

  private record Prediction(String label, float probability, String model, long version) {}

  /**
   * Classifies images.
   *
   * @param data one byte a value, image after image
   * @param modelVersion the version that must answer; 0 leaves it to the server
   * @throws StatusRuntimeException the call failed; its status says why
   */
  private static List<Prediction> predict(
      PredictionServiceBlockingStub stub, byte[] data, long modelVersion) {
    ModelVersion described =
        stub.withDeadlineAfter(TIMEOUT_S, TimeUnit.SECONDS)
            .getModel(GetModelRequest.getDefaultInstance())
            .getModel()
            .getVersions(0);
    int valuesPerImage = described.getInputShapeList().stream().reduce(1, Math::multiplyExact);
    int count = data.length / valuesPerImage;
    PredictRequest request =
        PredictRequest.newBuilder()
            .setModelVersion(modelVersion)
            .setImages(
                ImageBatch.newBuilder()
                    .setCount(count)
                    .setDataType(DataType.DATA_TYPE_UINT8)
                    .setData(ByteString.copyFrom(data)))
            .build();
    PredictResponse answer =
        stub.withDeadlineAfter(TIMEOUT_S, TimeUnit.SECONDS).predict(request);
    ByteBuffer labels = littleEndian(answer.getLabels());
    ByteBuffer probabilities = littleEndian(answer.getProbabilities());
    List<Prediction> predictions = new ArrayList<>();
    for (int image = 0; image < count; image++) {
      int label = labels.getInt(4 * image);
      int position = 4 * (image * described.getClassLabelsCount() + label);
      predictions.add(
          new Prediction(
              described.getClassLabels(label),
              probabilities.getFloat(position),
              answer.getModelName(),
              answer.getModelVersion()));
    }
    return predictions;
  }

  private static ByteBuffer littleEndian(ByteString bytes) {
    return bytes.asReadOnlyByteBuffer().order(ByteOrder.LITTLE_ENDIAN);
  }

  public static void main(String[] arguments) throws IOException {
    byte[] data = Files.readAllBytes(Path.of(arguments[1]));
    long version = arguments.length > 2 ? Long.parseLong(arguments[2]) : 0;
    ManagedChannel channel =
        ManagedChannelBuilder.forTarget(arguments[0])
            .usePlaintext()
            .defaultServiceConfig(RETRIES)
            .enableRetry()
            .build();
    try {
      List<Prediction> found =
          predict(PredictionServiceGrpc.newBlockingStub(channel), data, version);
      for (int image = 0; image < found.size(); image++) {
        Prediction row = found.get(image);
        System.out.printf(
            "image %d: %s (%.2f %%), %s version %d%n",
            image, row.label(), 100 * row.probability(), row.model(), row.version());
      }
    } catch (StatusRuntimeException error) {
      System.err.println(error.getStatus().getCode() + ": " + error.getStatus().getDescription());
      System.exit(1);
    } finally {
      channel.shutdownNow();
    }
  }
}
