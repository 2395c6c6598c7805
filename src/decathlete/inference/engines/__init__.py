"""Inference engines: what computes a network, and which one is chosen."""
