"""Decoding, resizing, cropping and augmentation."""
