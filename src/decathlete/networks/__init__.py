"""Network architectures behind one protocol, the blocks of the U-Net, precision and memory layout."""
