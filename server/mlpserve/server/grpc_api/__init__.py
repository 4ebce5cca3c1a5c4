"""The public gRPC API: the services of `mlpserve.v1`, health and reflection.

`messages` is all that knows the contract's protobuf; `fast_lane` answers Predict at full speed.
"""
