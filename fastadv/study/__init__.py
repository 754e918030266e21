"""The paper's experiments: the networks to train, what is measured, the tables, figures and claims."""
