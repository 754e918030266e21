"""Cost and robustness of each way of training, with the same network, data set and number of training examples."""
