"""The commands of ``mlpserve-models``: each takes its flags and returns the lines of its answer.

None prints; flags and output are the business of ``mlpserve.model.__main__``.
"""
