"""The gRPC server: loads published models and answers batches of images.

The request path (`registry`, `prediction`) knows neither gRPC nor protobuf; `service` is its
adapter to both, and `serving` is what runs.
"""

try:
    import grpc  # noqa: F401 - asked for here, where the answer to its absence can be given
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "mlpserve.server needs grpcio: pip install 'mlpserve[server]'"
    ) from error
