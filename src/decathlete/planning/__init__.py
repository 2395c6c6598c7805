"""From the dataset to the plan: fingerprint, topology, memory, planner, and the plan's schema."""
