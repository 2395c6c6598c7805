"""Foundations: geometry, labels, files, random numbers, parallel maps. Uses neither torch nor any other package."""
