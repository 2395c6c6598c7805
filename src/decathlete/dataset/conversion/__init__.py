"""Convert a dataset from another layout, from plain folders, or from a table of paths; the source is never changed."""
