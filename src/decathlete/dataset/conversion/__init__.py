"""One dataset layout from another, from plain folders, or from a table of paths; the source stays as it is."""
