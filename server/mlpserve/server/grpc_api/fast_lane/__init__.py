"""The adapter that drives grpcio's completion queue itself.

`lane` is all that touches grpcio's inside, `predict` and `infer` are what it does with the calls of
Predict and ModelInfer, `queued` answers them together, and `check` proves at start that it works.
"""
