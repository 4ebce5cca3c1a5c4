"""What a server asks of its operating system: signals, ports, open files."""
