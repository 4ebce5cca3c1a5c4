"""What a server counts and times, added up over its processes, for Prometheus.

    counters (each thread's own) --+
    queues, /proc -----------------+-- snapshot of a process -- aggregate -- exposition -- endpoint

Knows neither gRPC nor NumPy: the parent of several processes uses it as well.
"""
