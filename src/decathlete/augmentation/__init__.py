"""Random changes of training patches: batches of tensors, on whatever device they are."""
