"""Losses for a training loop that make the minibatch adversarial on the way."""
