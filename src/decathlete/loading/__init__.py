"""From the prepared store to batches: samplers, and loaders that are pure functions of seed and step."""
