"""Planning: fingerprint, topology, memory, planner, compute budget, and the schema of the plan."""
