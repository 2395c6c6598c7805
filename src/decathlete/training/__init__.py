"""Training: configuration, losses, the Lightning module, callbacks, and the run that strings them together."""
