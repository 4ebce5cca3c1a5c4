"""The Open Inference Protocol over HTTP, for those without gRPC. Needs the extra `http`.

`app` has the endpoints, `body` reads and writes JSON and binary tensors, `limits` bounds times and
sizes, `server` opens the port.
"""
