"""Several processes: devices, launch, rendezvous, collectives."""
