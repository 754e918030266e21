"""Labelled images in files: folders, tar shards and TFRecords."""
