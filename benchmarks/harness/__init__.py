"""What every benchmark here needs: the machine, its noise, turns, medians and tables.

Knows nothing of what is measured. The programs beside this folder do.
"""
