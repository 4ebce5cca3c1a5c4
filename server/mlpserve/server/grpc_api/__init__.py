"""Our own contract, `mlpserve.v1`: its messages, and its services on the public gRPC API.

Its sister is `oip`, for the Open Inference Protocol.
"""
