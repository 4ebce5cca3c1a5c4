"""The Open Inference Protocol: the same requests in other words, so that its clients call us too.

    bytes of gRPC or HTTP -> `messages` or `http` -> `values` -> `inference` -> ParsedRequest
    Answer -> `tensors` -> `values` -> `messages` or `http` -> bytes

`messages`, `descriptions` and `repository` know protobuf, `grpc` has the table of rpcs. What is
answered, and what is refused with which code, is in docs/open-inference-protocol.md.
"""
