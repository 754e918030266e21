"""Tasks: make a minibatch adversarial and return its loss, for any training loop."""
