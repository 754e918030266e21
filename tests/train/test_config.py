from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from fastadv.data import Preprocessing
from fastadv.eps import TruncatedNormalEps
from fastadv.pixels import PixelSpace
from fastadv.train import (
    AttackConfig,
    DataConfig,
    ModelConfig,
    OptimizerConfig,
    ScheduleConfig,
    SentinelConfig,
    TrainConfig,
)
from fastadv.train.config_errors import check_used
from fastadv.train.config_parsing import ConfigError, create_parser, dump_config, parse_config, read_recipe, recipes

SECTIONS = {
    "data": DataConfig,
    "model": ModelConfig,
    "attack": AttackConfig,
    "optimizer": OptimizerConfig,
    "schedule": ScheduleConfig,
    "sentinel": SentinelConfig,
}


# Ten of ten of ten ...: 10^9 values in nine lines.
LAUGHS = "a0: &a0 [0]\n" + "".join(
    f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]\n" for level in range(1, 10)
)


def free(**options: Any) -> AttackConfig:
    return AttackConfig(**{"training": "free", "replays": 4, "eps": 8, **options})


def paired(**options: Any) -> AttackConfig:
    return AttackConfig(**{"training": "paired", **options})


def fast(**options: Any) -> AttackConfig:
    return AttackConfig(**{"training": "fast", "eps": 8, **options})


def trades(**options: Any) -> AttackConfig:
    return AttackConfig(**{"training": "trades", "eps": 8, **options})


@pytest.mark.parametrize("name", recipes())
def test_every_recipe_is_parsed_and_survives_a_checkpoint(name: str) -> None:
    config = parse_config(read_recipe(name))
    assert config.attack.k > 0
    assert parse_config(yaml.safe_load(dump_config(config))) == config
    if config.attack.training == "algorithm1":
        assert parse_config(read_recipe(name), ["--attack.k", "0"]).attack.k == 0


@pytest.mark.parametrize(("training", "epochs"), [("free", 2), ("fast", 5), ("paired", 3), ("trades", 5)])
def test_recipes_to_compare(training: str, epochs: int) -> None:
    """They differ from Algorithm 1's recipe only in the attack, and free also in the epochs, because of its replays."""
    usual, other = (parse_config(read_recipe(f"fashion_mnist_{name}")) for name in ("step_ll", training))
    assert other.attack.training == training and other.epochs == epochs
    assert replace(other, attack=usual.attack, epochs=usual.epochs) == usual
    assert other.attack.size == (usual.attack.size if training == "paired" else usual.attack.eps_sigma)


def test_shipped_recipes() -> None:
    assert {"digits_step_ll", "fashion_mnist_step_ll", "cifar10_step_ll", "inception_v3_step_ll"} <= set(recipes())


def test_the_papers_recipe() -> None:
    """Sections 3 and 4; the recipe's comments say what is from Inception v3's own paper."""
    config = parse_config(read_recipe("inception_v3_step_ll"))
    attack, optimizer = config.attack, config.optimizer
    assert (config.m, attack.name, attack.k, attack.lambda_, attack.start_after) == (32, "step_ll", 16, 0.3, 10_000)
    assert attack.size == TruncatedNormalEps(sigma=8, upper=16)
    assert (optimizer.name, optimizer.lr, optimizer.options) == ("rmsprop_tf", 0.045, {})
    assert config.data.preprocessing == Preprocessing(size=299, least_area=0.05, flip=True)
    assert (config.schedule.name, config.schedule.decay, config.schedule.decay_every) == ("exponential", 0.94, 2)
    assert config.fast and config.precision == "bfloat16"
    assert config.epochs * (1_281_167 // 1_600) == pytest.approx(150_000, rel=0.005)


@pytest.mark.parametrize(
    ("values", "overrides", "expected"),
    [
        ({}, [], TrainConfig()),
        ({"epochs": 3}, [], TrainConfig(epochs=3)),
        ({"epochs": 3}, ["--epochs", "5"], TrainConfig(epochs=5)),
        ({}, ["--checkpoint-every=7"], TrainConfig(checkpoint_every=7)),
        ({}, ["--data", "/images"], TrainConfig(data=DataConfig(root="/images"))),
        ({}, ["--data=/images", "--download"], TrainConfig(data=DataConfig(root="/images", download=True))),
        ({}, ["--download", "false"], TrainConfig()),
        ({}, ["--minibatch", "16"], TrainConfig(m=16)),
        ({}, ["--minibatch=16"], TrainConfig(m=16)),
        ({}, ["--attack.start-after", "7"], TrainConfig(attack=AttackConfig(start_after=7))),
        ({}, ["--attack.start_after=7"], TrainConfig(attack=AttackConfig(start_after=7))),
        ({}, ["--data.flip", "--m", "16"], TrainConfig(data=DataConfig(flip=True), m=16)),
        ({}, ["--m", "16", "--data.flip"], TrainConfig(data=DataConfig(flip=True), m=16)),
        ({"data": {"flip": True}}, ["--data.flip", "false"], TrainConfig()),
        ({"data": {"flip": True}}, ["--data.flip=false"], TrainConfig()),
        (
            {},
            ["--optimizer.decay-norm-and-bias"],
            TrainConfig(optimizer=OptimizerConfig(decay_norm_and_bias=True)),
        ),
        (
            {"optimizer": {"lr": 1e-3}},
            ["--optimizer.name", "sgd"],
            TrainConfig(optimizer=OptimizerConfig(name="sgd", lr=1e-3)),
        ),
        (
            {"model": {"options": {"width": 2, "dropout": 0.5}}},
            ["--model.options.dropout", "0"],
            TrainConfig(model=ModelConfig(options={"width": 2, "dropout": 0})),
        ),
        ({"threads": 2}, ["--threads", "null"], TrainConfig()),
        ({}, ["--attack.eps", "8"], TrainConfig(attack=AttackConfig(eps=8.0))),
        # A value that looks like a class to instantiate is not instantiated.
        (
            {"attack": {"options": {"class_path": "subprocess.Popen"}}},
            [],
            TrainConfig(attack=AttackConfig(options={"class_path": "subprocess.Popen"})),
        ),
    ],
)
def test_values_and_overrides(values: dict[str, Any], overrides: list[str], expected: TrainConfig) -> None:
    assert parse_config(values, overrides) == expected


@pytest.mark.parametrize(
    ("values", "overrides", "said"),
    [
        ({"epoch": 3}, [], ["epoch", "did you mean epochs?", "accepted: data, model, attack"]),
        ({"optimizer": {"lrate": 1}}, [], ["optimizer.lrate", "accepted: name, lr, weight_decay"]),
        ({"optimizer": 0.1}, [], ["optimizer", "must map fields to values", "0.1"]),
        ({"optimizer": None}, [], ["optimizer", "must map fields to values"]),
        ({"epochs": None}, [], ["epochs", "null"]),
        ({"epochs": "many"}, [], ["epochs", "int", "many"]),
        ({"epochs": 2.5}, [], ["epochs", "int", "2.5"]),
        ({"optimizer": {"name": "adam"}}, [], ["optimizer.name", "rmsprop", "sgd", "adamw", "adam"]),
        ({"data": {"space": "rgb"}}, [], ["data.space", "raw", "unit", "symmetric", "imagenet", "rgb"]),
        ({}, ["--data.space", "rgb"], ["data.space must be one of raw, unit, symmetric, imagenet, got 'rgb'"]),
        ({}, ["--precision", "half"], ["precision must be one of float32, bfloat16, got 'half'"]),
        ({}, ["--model.options", "3"], ["model.options must map options to values, as --model.options.NAME VALUE"]),
        ({"attack": {"name": "deepfool"}}, [], ["attack.name", "step_ll", "iter_basic", "deepfool"]),
        ({"attack": {"bn": "train"}}, [], ["attack.bn", "eval", "batch", "train"]),
        ({"lr": 0.1}, [], ["unknown field lr (did you mean optimizer.lr?)"]),
        ({"optimizer": {"epochs": 3}}, [], ["unknown field optimizer.epochs (did you mean epochs?)"]),
        ({}, ["--epoch", "3"], ["unknown option --epoch (did you mean --epochs?)", "--help lists them all"]),
        ({}, ["--lr", "0.1"], ["unknown option --lr (did you mean --optimizer.lr?)"]),
        ({}, ["--lr=0.1"], ["unknown option --lr (did you mean --optimizer.lr?)"]),
        ({}, ["--learning-rate", "0.1"], ["did you mean --optimizer.lr?"]),
        ({}, ["--eps", "8"], ["unknown option --eps (did you mean --attack.eps?)"]),
        ({}, ["--attack.steps", "3"], ["unknown option --attack.steps (did you mean --attack.options.steps?)"]),
        ({}, ["--batch-size", "8"], ["did you mean --m?"]),
        ({}, ["--lambda", "1"], ["did you mean --attack.lambda_?"]),
        ({}, ["--model", "small_cnn"], ["unknown option --model (did you mean --model.name?)"]),
        ({}, ["--optimzer.lr", "1"], ["did you mean --optimizer.lr?"]),
        ({}, ["--attack.nam", "pgd"], ["unknown option --attack.nam (did you mean --attack.name?)"]),
        ({}, ["--atack.name", "pgd"], ["unknown option --atack.name (did you mean --attack.name?)"]),
        ({}, ["--data.lr", "1"], ["unknown option --data.lr (did you mean --optimizer.lr?)"]),
        ({"model": {"nam": "small_cnn"}}, [], ["unknown field model.nam (did you mean model.name?)"]),
        ({}, ["--attack.name", "pdg"], ["attack.name must be one of fgsm,", "got 'pdg' (did you mean pgd?)"]),
        ({}, ["--data.loader", "dalli"], ["got 'dalli' (did you mean dali?)"]),
        ({}, ["--optimizer.name", "sdg"], ["got 'sdg' (did you mean sgd?)"]),
        ({}, ["--zzz", "1"], ["unknown option --zzz; fastadv train --help"]),
        ({}, ["--attack.eps", "8/255"], ["attack.eps must be a number or null, got '8/255'", "scale is 8 here"]),
        ({"attack": {"eps_upper": "16 / 255"}}, [], ["attack.eps_upper must be a number", "scale is 16 here"]),
        ({}, ["--attack.eps", "big"], ["attack.eps must be a number or null, got 'big'"]),
        ({}, ["--data.flip", "maybe"], ["data.flip must be true or false, got 'maybe'"]),
        ({}, ["--optimizer.lr", "fast"], ["optimizer.lr must be a number", "fast"]),
        ({}, ["--optimizer.lr", "-1"], ["optimizer.lr", "above 0", "-1"]),
        ({}, ["--attack.k", "33"], ["attack.k", "at most", "m = 32", "33"]),
        ({}, ["--threads", "two"], ["threads must be an integer or null, got 'two'"]),
        ({}, ["--attack.eps", "300"], ["attack.eps must be a number at least 0 and at most 255, got 300.0"]),
        ({}, ["stray"], ["stray"]),
    ],
)
def test_errors_name_the_field_and_what_it_accepts(
    values: dict[str, Any], overrides: list[str], said: list[str]
) -> None:
    with pytest.raises(ConfigError) as error:
        parse_config(values, overrides)
    assert all(words in str(error.value) for words in said), error.value
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: TrainConfig(epochs=0), "epochs must be an integer of at least 1, got 0"),
        (lambda: TrainConfig(m=1.5), "m must be an integer"),  # type: ignore[arg-type]
        (lambda: TrainConfig(accumulate=0), "accumulate must be an integer of at least 1, got 0"),
        (lambda: TrainConfig(clip_grad_norm=0), "clip_grad_norm must be a number above 0, got 0"),
        (lambda: TrainConfig(ema_decay=1.0), "ema_decay must be a number above 0 and below 1, got 1.0"),
        (lambda: TrainConfig(precision="half"), "precision must be one of float32, bfloat16"),  # type: ignore[arg-type]
        (lambda: TrainConfig(keep=True), "keep must be an integer"),
        (lambda: TrainConfig(threads=0), "threads must be an integer of at least 1"),
        (lambda: TrainConfig(seed=-1), "seed must be an integer of at least 0"),
        (lambda: TrainConfig(label_smoothing=1.0), "label_smoothing must be a number at least 0 and below 1, got 1.0"),
        (lambda: TrainConfig(m=8, attack=AttackConfig(k=8, lambda_=0)), "lambda_ must be positive where attack.k = m"),
        (lambda: AttackConfig(lambda_=-0.1), "attack.lambda_ must be a number at least 0"),
        (lambda: AttackConfig(eps_sigma=0), "attack.eps_sigma must be a number above 0"),
        (lambda: AttackConfig(eps=float("nan")), "attack.eps must be a number at least 0 and at most 255, got nan"),
        (lambda: AttackConfig(eps=256), "attack.eps must be a number at least 0 and at most 255, got 256"),
        (lambda: AttackConfig(eps_upper=256), "attack.eps_upper must be a number above 0 and at most 255, got 256"),
        (lambda: free(eps=256), "attack.eps must be a number at least 0 and at most 255, got 256"),
        (lambda: AttackConfig(start_after=-1), "attack.start_after"),
        (
            lambda: AttackConfig(training="pgd"),
            "attack.training must be one of algorithm1, paired, free, fast, trades, got 'pgd'",
        ),  # type: ignore[arg-type]
        (lambda: AttackConfig(replays=4), "attack.replays has no effect with attack.training algorithm1"),
        (lambda: free(name="fgsm"), "attack.name has no effect with attack.training free: leave it out"),
        (lambda: free(k=0), "attack.k has no effect with attack.training free"),
        (lambda: free(lambda_=1.0), "attack.lambda_ has no effect"),
        (
            lambda: free(lambda_=1.0, k=3),
            "attack.k, attack.lambda_ have no effect with attack.training free: leave them out",
        ),
        (lambda: free(start_after=10), "attack.start_after has no effect"),
        (lambda: free(bn="batch"), "attack.bn has no effect"),
        (lambda: free(options={"steps": 2}), "attack.options must not set steps with attack.training free"),
        (lambda: free(options={"fold_bn": True}), "attack.options must not set fold_bn with attack.training free"),
        (
            lambda: free(eps=None),
            "attack.eps, one size for all examples, such as 16, with attack.training free, must be",
        ),
        (lambda: free(eps=0), "attack.eps, with attack.training free, must be a number above 0, got 0"),
        (lambda: free(replays=1), "attack.replays, with attack.training free, must be an integer of at least 2, got 1"),
        (
            lambda: AttackConfig(training="free"),
            "attack.eps, one size for all examples, such as 16, with attack.training free, must be a number above 0, "
            "got None; attack.replays, with "
            "attack.training free, must be an integer of at least 2, got 1",
        ),
        (lambda: fast(replays=4), "attack.replays has no effect with attack.training fast"),
        (lambda: fast(k=128), "attack.k has no effect with attack.training fast"),
        (
            lambda: fast(eps=None),
            "attack.eps, one size for all examples, such as 16, with attack.training fast, must be",
        ),
        (lambda: fast(options={"random_start": False}), "must not set random_start with attack.training fast"),
        (lambda: paired(k=16, bn="batch"), "attack.bn has no effect with attack.training paired"),
        (lambda: paired(k=8), "attack.k has no effect with attack.training paired"),
        (lambda: paired(running_statistics="own"), "attack.running_statistics must be one of shared, split, got 'own'"),
        (lambda: fast(running_statistics="split"), "attack.running_statistics has no effect with attack.training fast"),
        (lambda: AttackConfig(beta=-1), "attack.beta must be a number at least 0, got -1"),
        (lambda: fast(beta=1.0), "attack.beta has no effect with attack.training fast"),
        (lambda: trades(k=8), "attack.k has no effect with attack.training trades"),
        (lambda: trades(label_smoothing=0.1), "attack.label_smoothing has no effect with attack.training trades"),
        (
            lambda: trades(eps=None),
            "attack.eps, one size for all examples, such as 16, with attack.training trades, must be",
        ),
        (lambda: trades(options={"aux_weight": 1}), "must not set aux_weight with attack.training trades"),
        (lambda: TrainConfig(m=33, attack=paired()), "with attack.training paired, m must be even"),
        (lambda: TrainConfig(capture=True, attack=paired()), "capture does not go with attack.training paired"),
        (lambda: OptimizerConfig(weight_decay=-1), "optimizer.weight_decay"),
        (lambda: ScheduleConfig(decay=1.5), "schedule.decay must be a number above 0 and at most 1, got 1.5"),
        (lambda: ScheduleConfig(name="linear"), "schedule.name must be one of constant, cosine, exponential"),  # type: ignore[arg-type]
        (lambda: DataConfig(crop_padding=-1), "data.crop_padding"),
        (lambda: TrainConfig(capture=True, accumulate=2), "capture does not go with accumulate"),
        (lambda: TrainConfig(capture=True, compile=True), "capture does not go with compile"),
        (
            lambda: TrainConfig(capture=True, accumulate=2, compile=True),
            "capture does not go with accumulate 2; nor with compile",
        ),
        (lambda: TrainConfig(capture=True, attack=free(eps=4.0, replays=2)), "not go with attack.training free"),
        *(
            (
                lambda options=options: TrainConfig(capture=True, attack=AttackConfig(options=options)),
                f"capture does not go with attack.options.{name}",
            )
            for name, options in (
                ("compile", {"compile": True}),
                ("capture", {"capture": True}),
                ("validate always", {"validate": "always"}),
            )
        ),
        (lambda: TrainConfig(capture=True, attack=AttackConfig(name="iter_ll")), "set attack.eps or attack.options"),
    ],
)
def test_wrong_values_from_python(make: Any, said: str) -> None:
    with pytest.raises(ValueError) as error:
        make()
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "neither a readable file"),
        ("a: [", "is not YAML"),
        ("- 1", "must map fields"),
        ("# 1", "is empty"),
        (LAUGHS, "with its aliases expanded it has more than 10,000 values"),
        (LAUGHS.replace("[", "[{<<: [").replace("]", "]}]"), "aliases expanded it has more than 10,000 values"),
        ("model: &a\n  options: *a", "a node contains itself"),
        ("model: &a [*a]", "a node contains itself"),
        ("epochs: " + "[" * 2_000, "nested too deeply"),
        ("epochs: 1\n" * 10_000, "more than 65,536 characters"),
        ("epochs: !!python/object/apply:os.mkdir [x]", "could not determine a constructor"),
        ("epochs: !!bool x", "is not YAML"),
        ("epochs: 2024-99-99", "month must be in 1..12"),
        ("epochs: " + "1" * 5000, "limit"),
        ("1: 2", "unknown field 1"),
        ("model: {options: {[1]: 2}}", "unhashable"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_recipes_that_cannot_be_read(text: str | None, said: str, tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError, match=said) as caught:
        parse_config(read_recipe(str(path)))
    assert "\n" not in str(caught.value)


def test_a_recipe_without_an_end() -> None:
    with pytest.raises(ConfigError, match="more than 65,536 characters"):
        read_recipe("/dev/zero")


def test_aliases_are_written_out(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("attack: &few {k: 8}\nmodel: {options: {<<: *few}}\n")
    assert read_recipe(str(tmp_path / "own.yaml")) == {"attack": {"k": 8}, "model": {"options": {"k": 8}}}


@pytest.mark.parametrize(
    ("name", "meant"),
    [("digit_step_ll", "digits_step_ll"), ("x/cifar10_step_ll.yml", "cifar10_step_ll"), ("zzz", None)],
)
def test_unknown_recipes(name: str, meant: str | None) -> None:
    with pytest.raises(ConfigError, match="cifar10_step_ll, digits_step_ll, fashion_mnist_fast") as error:
        read_recipe(name)
    assert ("did you mean" in str(error.value)) is (meant is not None)
    assert str(error.value).endswith(f"(did you mean {meant}?)") or meant is None


def test_own_recipe_by_path(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text("attack: {eps: 8}\n")
    assert parse_config(read_recipe(str(path))).attack.eps == 8


def test_help_has_every_field_and_its_docstring() -> None:
    text = " ".join(create_parser().format_help().split())
    for section, kind in {"": TrainConfig, **SECTIONS}.items():
        for field in fields(kind):
            if field.name not in SECTIONS:
                assert f"--{section}.{field.name} ".replace("--.", "--") in text
    assert "Adversarial examples per minibatch: 0 is standard training" in text
    assert "Passes over the training set" in text


@pytest.mark.parametrize(
    ("attack", "size"),
    [
        (AttackConfig(), TruncatedNormalEps(sigma=8.0, upper=16.0)),
        (AttackConfig(eps_sigma=4.0, eps_upper=9.0), TruncatedNormalEps(sigma=4.0, upper=9.0)),
        (AttackConfig(eps=3.0), 3.0),
        (AttackConfig(eps=0.0), 0.0),
        (free(eps=5), 5),
        (fast(options={"alpha": 9}), 8),
    ],
)
def test_size_of_the_perturbation(attack: AttackConfig, size: float | TruncatedNormalEps) -> None:
    assert attack.size == size


@pytest.mark.parametrize("name", ["raw", "unit", "symmetric", "imagenet"])
def test_spaces(name: Any) -> None:
    assert DataConfig(space=name).pixel_space == getattr(PixelSpace, name)()


FILES_ALONE = "images in files are --data.name imagenet"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, None),
        ({"flip": True, "space": "raw", "crop_padding": 1}, None),
        ({"root": "images"}, f"data.name digits does not use data.root: {FILES_ALONE}"),
        ({"root": "images", "size": 64}, f"data.name digits does not use data.root, data.size: {FILES_ALONE}"),
        ({"download": True}, f"data.name digits does not use data.download: {FILES_ALONE}"),
        ({"name": "cifar10", "root": "images", "download": True, "crop_padding": 4}, None),
        ({"name": "cifar10", "size": 299, "workers": None, "loader": "auto"}, None),  # the defaults
        *(
            ({"name": "cifar10", name: value}, f"data.name cifar10 does not use data.{name}: {FILES_ALONE}")
            for name, value in {
                "size": 32,
                "least_area": 0.5,
                "widest_aspect": 1.0,
                "colour": True,
                "central": 1.0,
                "loader": "dali",
                "workers": 2,
                "prefetch": 3,
                "on_bad_image": "stop",
            }.items()
        ),
        ({"name": "imagenet", "root": "images", "size": 64, "workers": 2, "colour": True}, None),
        ({"name": "imagenet", "crop_padding": 4}, "data.name imagenet does not use data.crop_padding: data.least_area"),
    ],
)
def test_what_the_data_set_does_not_use_was_meant_for_another(given: dict[str, Any], said: str | None) -> None:
    if said is None:
        check_used(DataConfig(**given))
        return
    with pytest.raises(ConfigError) as error:
        check_used(DataConfig(**given))
    assert str(error.value).startswith(said)


@pytest.mark.parametrize("name", recipes())
def test_recipes_set_nothing_that_is_not_used(name: str) -> None:
    check_used(parse_config(read_recipe(name)).data)


@pytest.mark.parametrize("method", ["free", "fast", "trades"])
def test_a_recipe_with_drawn_sizes_can_be_trained_by_a_method_with_one_size(method: str) -> None:
    replays = {"replays": 2} if method == "free" else {}
    attack = AttackConfig(training=method, eps=16.0, eps_sigma=32.0, eps_upper=64.0, **replays)  # type: ignore[arg-type]
    assert attack.size == 16.0


def test_how_to_unset_what_a_recipe_sets(tmp_path: Path) -> None:
    """Only the command line has options that go back to a default: not Python, and not a phase."""
    attack = {"training": "free", "replays": 4, "eps": 16, "lambda_": 1.0, "k": 3}
    back = "leave them out, or, where the recipe sets them, go back to the default by --attack.k 16 --attack.lambda_"
    with pytest.raises(ConfigError, match=f"have no effect with attack.training free: {back} 0.3$"):
        parse_config({"attack": attack})
    fast = {"training": "fast", "eps": 16}
    with pytest.raises(ConfigError, match=r"phases\[0\].attack.k has no effect with .* fast: leave it out$"):
        parse_config({"attack": fast, "phases": [{"epochs": 1, "attack": {"k": 3}}]})
