"""Ground floor: geometry, labels, files, randomness, parallel maps. No torch, nothing of the rooms above."""
