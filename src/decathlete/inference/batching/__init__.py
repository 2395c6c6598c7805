"""Cases in order: read ahead, computed together, written behind."""
