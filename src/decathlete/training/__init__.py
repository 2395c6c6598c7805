"""Training: configuration, objective, loop, distributed processes, reporting, and the run that composes them."""
