"""The fast lane: an endpoint for hot rpcs that drives grpcio's completion queue itself.

`lane` is all that touches grpcio's inside, `handler` answers the calls of Predict and ModelInfer in
batches, and `self_test` proves at start that it works.
"""
