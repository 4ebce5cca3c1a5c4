"""Operating system: signals, ports and descriptors of open files."""
