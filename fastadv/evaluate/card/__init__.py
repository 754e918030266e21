"""The robustness card: the worst case over a suite of attacks, on one page, with what puts it in doubt."""
