"""The Open Inference Protocol over HTTP, for those without gRPC: JSON, also with binary tensors.

`bodies` and `tensors` know how requests and responses are written, `application` the paths,
`listening` the port. Needs the extra `http`.
"""
