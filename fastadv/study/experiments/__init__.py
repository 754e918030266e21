"""The paper's experiments, one file each: networks, measurements, tables and figures, and claims.

Twelve come from the paper; seeds shows how much of a difference is due to chance.
"""

from fastadv.study.experiments import (
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
from fastadv.study.plan import Study

EXPERIMENTS = (
    *(table1, table2, table3, capacity, transfer, one_step, activations, k_sweep),
    *(delay, fixed_eps, iterative_training, regularizers, seeds),
)
STUDIES: dict[str, Study] = {experiment.STUDY.name: experiment.STUDY for experiment in EXPERIMENTS}
