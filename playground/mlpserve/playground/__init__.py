"""Playground: a web page to draw on, which asks a server for its answer with every stroke."""
