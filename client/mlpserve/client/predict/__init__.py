"""The program ``mlpserve-predict``: what it reads, whom it asks, what it writes.

For the program, not for the library: it needs what the extra ``predict`` brings.
"""
