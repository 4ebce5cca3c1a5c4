"""The adapter that drives grpcio's completion queue itself.

`lane` is all that touches grpcio's inside, `predict` is what it does with the calls of Predict, and
`check` proves at start that it works.
"""
