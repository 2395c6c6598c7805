"""Read batches from the prepared store: samplers, and loaders that are pure functions of seed and step."""
