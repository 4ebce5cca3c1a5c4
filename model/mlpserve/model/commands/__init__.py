"""What ``mlpserve-models`` does, a module for each group of commands.

Each adds its flags to the parser, and returns the lines of its answer. It prints nothing.
"""
