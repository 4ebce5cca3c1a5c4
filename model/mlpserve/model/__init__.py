"""The contract between the trainer and the server: the network and its versioned weights file.

Needs NumPy only. Knows neither how a network is trained nor how it is served.
"""
