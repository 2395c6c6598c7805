"""Guards against tests that hang."""

HANG_S = 1200
"""Seconds after which something that a test waits for counts as hanging: far more than it needs on a busy machine."""
