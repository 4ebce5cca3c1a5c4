"""How a network learns: derivatives, optimizers, schedules, and the loop that runs them.

Mathematics on arrays; knows neither files nor terminals.
"""
