"""The paper's experiments as recipes: networks, evaluations, tables, figures and claims."""
