"""Data sets that are read into memory whole."""
