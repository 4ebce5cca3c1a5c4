"""Settings of the server: declared once, and read from flags, variables and a file."""
