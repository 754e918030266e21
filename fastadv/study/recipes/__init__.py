"""The studies, one module each: twelve of the paper, and one of seeds."""

from fastadv.study.plan import Study
from fastadv.study.recipes import (
    activations,
    capacity,
    delay,
    fixed_eps,
    iterative_training,
    k_sweep,
    one_step,
    regularizers,
    seeds,
    table1,
    table2,
    table3,
    transfer,
)

_MODULES = (
    *(table1, table2, table3, capacity, transfer, one_step, activations, k_sweep),
    *(delay, fixed_eps, iterative_training, regularizers, seeds),
)
STUDIES: dict[str, Study] = {module.STUDY.name: module.STUDY for module in _MODULES}
