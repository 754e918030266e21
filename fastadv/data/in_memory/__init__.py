"""Data sets that are read into memory as a whole."""
