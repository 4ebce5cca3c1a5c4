// Client of Predict with gRPC's own packages: classifies the images of a file, one byte a value.
//
//	go run . TARGET FILE [VERSION]
package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	mlpservev1 "mlpserve.example/client/mlpserve/v1"
)

const timeout = 5 * time.Second

// All rpcs are idempotent: a call that finds no server is tried again, for about two seconds.
const retries = `{
  "loadBalancingConfig": [{"round_robin": {}}],
  "methodConfig": [{
    "name": [{"service": "mlpserve.v1.PredictionService"}],
    "retryPolicy": {
      "maxAttempts": 5, "initialBackoff": "0.1s", "maxBackoff": "1s", "backoffMultiplier": 2,
      "retryableStatusCodes": ["UNAVAILABLE"]
    }
  }]
}`

type prediction struct {
	label       string
	probability float32
	model       string
	version     int64
}

// predict classifies images of one byte a value, image after image in data. Version 0 leaves the
// version to the server.
func predict(client mlpservev1.PredictionServiceClient, data []byte, version int64) ([]prediction, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	described, err := client.GetModel(ctx, &mlpservev1.GetModelRequest{})
	if err != nil {
		return nil, err
	}
	model := described.Model.Versions[0]
	valuesPerImage := 1
	for _, size := range model.InputShape {
		valuesPerImage *= int(size)
	}
	count := len(data) / valuesPerImage
	answer, err := client.Predict(ctx, &mlpservev1.PredictRequest{
		ModelVersion: version,
		Images: &mlpservev1.ImageBatch{
			Count:    uint32(count),
			DataType: mlpservev1.DataType_DATA_TYPE_UINT8,
			Data:     data,
		},
	})
	if err != nil {
		return nil, err
	}
	predictions := make([]prediction, count)
	for image := range predictions {
		label := int(binary.LittleEndian.Uint32(answer.Labels[4*image:]))
		position := 4 * (image*len(model.ClassLabels) + label)
		bits := binary.LittleEndian.Uint32(answer.Probabilities[position:])
		predictions[image] = prediction{
			label:       model.ClassLabels[label],
			probability: math.Float32frombits(bits),
			model:       answer.ModelName,
			version:     answer.ModelVersion,
		}
	}
	return predictions, nil
}

func run(target, file string, version int64) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	connection, err := grpc.Dial(target, grpc.WithInsecure(), grpc.WithDefaultServiceConfig(retries))
	if err != nil {
		return err
	}
	defer connection.Close()
	predictions, err := predict(mlpservev1.NewPredictionServiceClient(connection), data, version)
	if err != nil {
		return err
	}
	for image, found := range predictions {
		fmt.Printf("image %d: %s (%.2f %%), %s version %d\n",
			image, found.label, 100*found.probability, found.model, found.version)
	}
	return nil
}

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: client TARGET FILE [VERSION]")
		os.Exit(2)
	}
	version := int64(0)
	if len(os.Args) > 3 {
		version, _ = strconv.ParseInt(os.Args[3], 10, 64)
	}
	if err := run(os.Args[1], os.Args[2], version); err != nil {
		if found, isStatus := status.FromError(err); isStatus {
			fmt.Fprintf(os.Stderr, "%v: %s\n", found.Code(), found.Message())
		} else {
			fmt.Fprintln(os.Stderr, err)
		}
		os.Exit(1)
	}
}
