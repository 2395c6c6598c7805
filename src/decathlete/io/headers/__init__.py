"""Strict readers of image headers, in pure Python: nothing is allocated, and no native library sees the file.

A header is believed only if every line has a known form, every number can be read and is finite, every count agrees
with the others, the voxels lie in the same folder, and the file can hold as many voxels as the header declares.
"""
