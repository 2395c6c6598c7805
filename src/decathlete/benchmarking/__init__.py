"""Measures how fast a training step or a prediction is on this machine, and writes down what it was measured with.

Not called ``benchmark``: that is the function's name in Python, ``decathlete.benchmark``.
"""
