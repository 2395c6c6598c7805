"""Workflows that compose the packages: prepare, train, validate, report, run, demo."""
