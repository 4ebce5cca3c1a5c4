"""Numba engine: trainings in compiled code. Imported only by ``engine``, because Numba is an extra.

    tensor_parallel   several threads share out the parameters: fused_step, products, team, atomics
    compiled          the passes of backprop, optimizers and averaging: loops
    sparse            the first layer without black pixels: registers

Begin with ``loops``. Formulas are explained where NumPy computes them, in ``backprop`` and others.
"""
