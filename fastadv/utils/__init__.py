"""Helpers that know nothing of attacks, data or training."""
