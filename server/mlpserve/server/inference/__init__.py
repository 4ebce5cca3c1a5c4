"""From the images of many requests to the answers of each: read, queued, joined, computed, divided.

prediction -- rows --> row_queue -- whose turn it is --> batcher -- one pass --> compiled
"""
