"""Image formats behind one reader and writer protocol, always with the image's place in the world."""
