"""The sliding window: its grid, flips, sums in tiles, and the sweep."""
