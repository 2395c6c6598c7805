"""Raw datasets: manifests, images, checks, splits, made-up data."""
