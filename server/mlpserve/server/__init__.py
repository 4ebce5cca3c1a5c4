"""The gRPC server: loads published models and answers batches of images.

The request path (`compiled`, `registry`, `prediction`, `batching`) knows neither gRPC nor
protobuf; `lifecycle` decides what is in the registry. `messages` knows protobuf; the adapters
`service` (the public API) and `fast_lane` know gRPC. `oip` answers the Open Inference Protocol over
gRPC and HTTP, from the same request path. `serving` puts one process together, `processes` several.
"""

from importlib.util import find_spec

if find_spec("grpc") is None:  # asked for here, where the answer to its absence can be given
    raise ModuleNotFoundError("mlpserve.server needs grpcio: pip install 'mlpserve[server]'")
