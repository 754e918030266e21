"""Small checks that notice masked gradients, each with what it counted as evidence."""

from fastadv.evaluate.checks.finding import Finding
from fastadv.evaluate.checks.run import run_checks

__all__ = ["Finding", "run_checks"]
