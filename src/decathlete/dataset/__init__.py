"""Raw datasets: manifests, checks, splits, downloads, conversion between layouts."""
