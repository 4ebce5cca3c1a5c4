"""Security: TLS, bearer tokens, limits, and files that are read again when they change."""
