"""The U-Net: blocks, the N-dimensional network, building it from its spec, and trained models on disk."""
