"""How the gradient of an attack is made, and made fast: folding, compilation, CUDA graphs."""
