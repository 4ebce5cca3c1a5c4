"""Learning: gradients, optimizers, schedules, and the training loop. Begin with ``plain``.

Mathematics on arrays; knows neither files nor terminals.
"""
