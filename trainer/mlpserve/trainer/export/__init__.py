"""Published versions in the formats of other programs: `mlpserve-train export`.

Each format has a module and an extra of its own; the trainer and its image need none of them.
"""
