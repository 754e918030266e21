from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from fastadv.study import paper
from fastadv.study.evaluations import Leaking, Robustness, Transfer
from fastadv.study.experiments import STUDIES, transfer
from fastadv.study.experiments.seeds import networks as seed_networks
from fastadv.study.networks import Network, vary
from fastadv.study.scales import SMALL, Scale, imagenet
from fastadv.train import TrainConfig

SCALES = {**SMALL, "imagenet": imagenet}


def test_vary_changes_only_the_named_fields() -> None:
    base = TrainConfig()
    changed = vary(base, {"attack.k": 4, "model.options.width": 2.0, "epochs": 3, "model.options.dropout": 0.1})
    assert (changed.attack.k, changed.epochs, changed.model.options) == (4, 3, {"width": 2.0, "dropout": 0.1})
    assert changed.attack.lambda_ == base.attack.lambda_ and base.model.options == {}
    with pytest.raises(TypeError):
        vary(base, {"attack.kk": 4})
    with pytest.raises(ValueError, match="attack"):
        vary(base, {"attack.k": 64})


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({"device": "cuda", "threads": 1, "keep": 1, "data.root": "/x", "compile": True, "log_every": 5}, True),
        ({"seed": 1}, False),
        ({"epochs": 11}, False),
        ({"model.options.width": 2.0}, False),
        ({"attack.k": 8}, False),
        ({"attack.options.steps": 8}, False),
        ({"accumulate": 2}, False),
        ({"data.size": 224}, False),
    ],
)
def test_network_ids_depend_on_the_training_only(changes: dict[str, Any], same: bool) -> None:
    base = TrainConfig()
    assert (Network("one", base).id == Network("other", vary(base, changes)).id) is same


def test_ids_of_standard_training_ignore_the_attack() -> None:
    one = Network("", vary(TrainConfig(), {"attack.k": 0}))
    assert one.id == Network("", vary(one.config, {"attack.name": "fgsm", "attack.eps_sigma": 4.0})).id


@pytest.mark.parametrize("scale", [make() for make in SCALES.values()], ids=SCALES)
def test_every_study_at_every_scale(scale: Scale) -> None:
    assert list(STUDIES) == [
        *("table1", "table2", "table3", "capacity", "transfer", "one_step", "activations", "k_sweep"),
        *("delay", "fixed_eps", "iterative_training", "regularizers", "seeds"),
    ]
    for study in STUDIES.values():
        names = [network.name for network in study.networks(scale)]
        assert len(names) == len(set(names)) > 1
        for part in study.evaluations(scale):
            assert isinstance(part, Robustness | Transfer | Leaking) and part.networks and part.eps


def test_networks_are_shared_between_studies() -> None:
    scale = SMALL["fashion_mnist"]()
    every = [network.id for study in STUDIES.values() for network in study.networks(scale)]
    assert len(every) == 63 and len(set(every)) == 43
    base = scale.adversarial("").id
    sharing = {name for name, study in STUDIES.items() if base in {n.id for n in study.networks(scale)}}
    assert sharing == set(STUDIES) - {"transfer"}


def test_another_seed_is_network_b_of_the_transfer_study() -> None:
    scale = SMALL["fashion_mnist"]()
    seeds, others = seed_networks(scale), transfer.networks(scale)
    assert seeds["standard", 0].id == others["A"].id and seeds["standard", 1].id == others["B"].id
    assert seeds["adversarial", 0].id == scale.adversarial("").id != seeds["adversarial", 1].id


def test_iterative_methods_get_fewer_images() -> None:
    scale = SMALL["fashion_mnist"]()
    one_step, iterative = scale.sweep([scale.adversarial("")], ["iter_ll", "step_ll", "iter_basic", "fgsm"])
    assert (one_step.attacks, one_step.limit) == (("step_ll", "fgsm"), None)
    assert (iterative.attacks, iterative.limit) == (("iter_ll", "iter_basic"), 1000)
    assert [part.attacks for part in scale.sweep([scale.adversarial("")], ["step_ll"])] == [("step_ll",)]


def test_imagenet_scale_is_the_papers_setting() -> None:
    scale = imagenet()
    base = scale.base
    assert (base.m, base.attack.k, base.attack.lambda_) == (32, 16, 0.3)
    assert (base.attack.eps_sigma, base.attack.eps_upper, base.attack.start_after) == (8, 16, 10_000)
    assert (base.optimizer.name, base.optimizer.lr) == ("rmsprop_tf", 0.045)
    iterations = base.epochs * (scale.train_images // (base.m * base.accumulate))
    assert base.attack.start_after in {n.config.attack.start_after for n in STUDIES["delay"].networks(scale)}
    assert scale.adversarial("").id in {network.id for network in STUDIES["delay"].networks(scale)}
    assert base.m * base.accumulate == 1600 and iterations == pytest.approx(150_000, rel=0.01)
    assert scale.eps == paper.EPS and (scale.transfer_limit, scale.test_images) == (1000, 50_000)
    by_name = {network.name: network.config for study in STUDIES.values() for network in study.networks(scale)}
    assert by_name["D: another architecture"].model.name == "inception_v4"
    assert by_name["C: ELU"].model.options["activation"] == "elu" and by_name["C: ELU"].attack.k == 0
    assert by_name["Trained on FGSM"].optimizer.lr == 0.0225
    assert by_name["fast entropy"].epochs * 800 == pytest.approx(90_000, rel=0.01)
    [late] = [config for name, config in by_name.items() if name.endswith("(40,000)")]
    assert late.attack.start_after == pytest.approx(40_000, rel=0.01)
    assert by_name["Adv., k = 24 of 32"].attack.k == 24


def test_small_scales_keep_the_papers_proportions() -> None:
    for make in SMALL.values():
        base, scale = make().base, make()
        assert base.attack.k / base.m == 1 / 2 and base.attack.lambda_ == 0.3
        assert base.attack.eps_upper == scale.eps[-1] == 2 * base.attack.eps_sigma
        assert [after / before for before, after in zip(scale.eps, scale.eps[1:], strict=False)] == [2, 2, 2]
        assert base.attack.start_after == scale.scaled_iterations(10_000) > 0


def test_shortened_scales() -> None:
    scale = SMALL["fashion_mnist"]().shortened(epochs=1, limit=200)
    assert (scale.base.epochs, scale.base.attack.start_after) == (1, round(468 / 15))
    assert (scale.limit, scale.iterative_limit, scale.transfer_limit) == (200, 200, 200)
    assert SMALL["fashion_mnist"]().shortened(epochs=None, limit=None) == SMALL["fashion_mnist"]()


@pytest.mark.parametrize(
    ("make", "epochs", "limit", "cut"),
    [
        (SMALL["fashion_mnist"], 1, None, "cut short: 1 epoch instead of 3"),
        (SMALL["fashion_mnist"], 5, None, "changed: 5 epochs instead of 3"),
        (SMALL["fashion_mnist"], 3, 10_000, ""),
        (
            SMALL["fashion_mnist"],
            2,
            200,
            "cut short: 2 epochs instead of 3; 200 test images instead of 10,000 for one-step methods and of 1,000 "
            "for iterative methods and for transfer",
        ),
        (
            SMALL["fashion_mnist"],
            None,
            1000,
            "cut short: 1,000 test images instead of 10,000 for one-step methods",
        ),
        (SMALL["digits"], None, 100, "cut short: 100 test images instead of 500"),
        (imagenet, 2, None, "cut short: 2 epochs instead of 187 and 112 in Table 5"),
    ],
)
def test_shortened_scales_describe_the_changes(
    make: Callable[[], Scale], epochs: int | None, limit: int | None, cut: str
) -> None:
    scale = make().shortened(epochs=epochs, limit=limit)
    assert scale.shortening == cut
    assert scale.description == (
        f"This study was {cut}. The full scale: {make().rationale}" if cut else make().rationale
    )


# --- the paper's numbers ---------------------------------------------------------------------------------------------


def test_the_papers_tables_are_complete() -> None:
    numbers = paper.numbers()
    assert [len(numbers[f"table{i}"]) for i in (1, 2, 3, 5, 7, 8)] == [4, 4, 2, 10, 18, 6]
    for table in (1, 2, 3, 5, 7, 8):
        for row in numbers[f"table{table}"]:
            for top in (1, 5):
                values = paper.accuracies(f"table{table}", row, top)
                assert values is None or (len(values) == 5 and all(0 < value < 100 for value in values))
            assert paper.accuracies(f"table{table}", row) is not None
    for table in ("table4", "table6"):
        for attack in ("fgsm", "iter_basic", "iter_ll"):
            for top in (1, 5):
                assert [len(row) for row in paper.transfer(table, attack, top)] == [4] * 4


@pytest.mark.parametrize(
    ("table", "row", "top", "values"),
    [
        ("table1", "baseline", 1, (78.4, 30.8, 27.2, 27.2, 29.5)),
        ("table1", "deeper_adversarial", 5, (94.1, 92.6, 92.7, 92.5, 91.6)),
        ("table2", "iter_basic baseline", 5, (94.1, 43.1, 34.8, 30.2, 28.8)),
        ("table3", "fgsm", 1, (76.6, 86.2, 87.6, 88.7, 87.0)),
        ("table5", "random_normal", 1, (76.6, 38.3, 36.0, 34.4, 31.8)),
        ("table7", "iter_ll tanh", 1, (74.5, 35.8, 6.6, 2.7, 0.9)),
        ("table8", 32, 1, (76.3, 73.4, 75.1, 75.9, 75.8)),
        ("table8", 32, 5, None),
        ("table7", "step_ll elu", 1, None),
    ],
)
def test_the_papers_numbers(table: str, row: Any, top: int, values: tuple[float, ...] | None) -> None:
    assert paper.accuracies(table, row, top) == values


def test_the_papers_transfer() -> None:
    assert paper.transfer("table4", "fgsm", 5)[3] == [42, 38, 46, 100]
    assert paper.transfer("table6", "iter_ll", 1)[1] == [35, 99, 34, 29]
    assert all(
        paper.transfer("table4", a, t)[i][i] == 100 for a in ("fgsm", "iter_ll") for t in (1, 5) for i in range(4)
    )
