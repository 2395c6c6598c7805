"""Select the best configuration or pair of configurations by cross-validation, and decide its post-processing."""
