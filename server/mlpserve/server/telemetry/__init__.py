"""What a server tells those who run it: metrics, logs, traces, and the protocol's statistics."""
