"""Inference: images of many requests, decoded, queued, batched, run through a network, divided.

decoding -- rows --> queue (fair share) -- whose turn it is --> batcher -- one pass --> compiled
"""
