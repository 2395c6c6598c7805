"""From the prepared store to batches: where to cut, and a loader that is a pure function of seed and step."""
