"""Telemetry: metrics, logs, traces and statistics for those who run a server."""
