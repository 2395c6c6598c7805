"""One image from its file's grid to network input, the exact way back, and the store of prepared cases."""
