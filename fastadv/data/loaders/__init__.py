"""Minibatches from images in memory or in files."""
