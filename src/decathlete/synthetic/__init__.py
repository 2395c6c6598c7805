"""Synthetic images and datasets for the demo, tests and examples."""
