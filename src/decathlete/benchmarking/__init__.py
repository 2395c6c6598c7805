"""Measures the speed of training steps and predictions on this machine, and records the conditions.

The package is not called ``benchmark``, because that is the name of the function ``decathlete.benchmark``.
"""
