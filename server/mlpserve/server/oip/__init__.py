"""The Open Inference Protocol: other words for the same requests, so that its clients call us too.

    bytes of gRPC or HTTP -> `requests` -> `inference`: model and images -> the request path
    probabilities and labels -> `outputs` -> `requests` -> bytes

`messages` and `descriptions` know protobuf, `service` knows gRPC; all else knows neither. What is
answered, and what is refused with which code, is in docs/open-inference-protocol.md.
"""
