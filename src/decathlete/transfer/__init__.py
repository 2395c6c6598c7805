"""Downloads and archives: files from outside, resumed, checked and safely unpacked."""
