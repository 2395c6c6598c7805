"""The trained model on disk: bundles of weights and everything that prediction needs."""
