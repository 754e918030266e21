"""Attacks leave the model unchanged, and run one forward and one backward pass to the input per gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributed import fsdp
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from fastadv import attacks
from fastadv.utils import module_modes
from tests.attacks.gradients import GRADIENTS, STOPPING
from tests.attacks.models import ConvNet, batch
from tests.completeness import check_complete


def test_the_table_is_complete() -> None:
    check_complete("tests/attacks/gradients.py", [*GRADIENTS, *STOPPING], attacks.names())


# --- no more work than needed ----------------------------------------------------------------------------------------


class Counted(torch.autograd.Function):
    """The identity, which records when it runs."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, events: list[str]) -> Tensor:
        ctx.events = events
        events.append("forward")
        return images.view_as(images)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        ctx.events.append("backward")
        return grad, None


@pytest.mark.parametrize(("name", "gradients"), GRADIENTS.items())
def test_one_forward_and_one_backward_per_gradient(name: str, gradients: int) -> None:
    """None for the label, the predicted, the least likely or the random class."""
    model, events = ConvNet(), []
    images, labels = batch()
    attack = attacks.create(name, lambda x: model(Counted.apply(x, events)), eps=4)
    attack(images, labels if attack.needs_labels else None)
    assert events == ["forward", "backward"] * gradients


class Clones(TorchDispatchMode):
    """Records the number of elements of each clone."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.clone.default:
            self.sizes.append(args[0].numel())
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("name", "gradients"), GRADIENTS.items())
def test_images_are_copied_for_the_model_the_ball_and_the_result(name: str, gradients: int) -> None:
    images, labels = batch()
    attack = attacks.create(name, ConvNet(), eps=4)
    with Clones() as in_place:
        attack.perturb_(images, labels)
    with Clones() as call:
        attack(images, labels)
    clean = 1 if gradients > 1 or name == "n_fgsm" else 0  # for the ball, or to restore what its noise has changed
    assert in_place.sizes.count(images.numel()) == gradients + clean  # a copy for each call of the model
    assert call.sizes.count(images.numel()) == gradients + clean + 1


class NewShapes(TorchDispatchMode):
    """Records the shape of every computed tensor, but not of views."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: set[tuple[int, ...]] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not func.is_view:
            for tensor in result if isinstance(result, (tuple, list)) else (result,):
                if isinstance(tensor, Tensor):
                    self.shapes.add(tuple(tensor.shape))
        return result


@pytest.mark.parametrize("bn", ["eval", "batch"])
@pytest.mark.parametrize("name", [*GRADIENTS, *STOPPING])
def test_no_gradient_of_a_weight_is_computed(name: str, bn: str) -> None:
    model = ConvNet().train()
    matrices = {tuple(weight.shape) for weight in model.parameters() if weight.dim() > 1}
    images, labels = batch()
    with NewShapes() as generation:
        attacks.create(name, model, eps=4, bn=bn)(images, labels)
    with NewShapes() as training:
        functional.cross_entropy(model(images), labels).backward()
    assert matrices <= training.shapes  # what would be seen
    assert not matrices & generation.shapes


# --- no trace --------------------------------------------------------------------------------------------------------


def everything(model: nn.Module) -> dict[str, Any]:
    """Copy everything that can be observed of a model."""
    state: dict[str, Any] = {}
    for name, module in model.named_modules():
        state[f"{name}: mode"] = module.training
        state[f"{name}: attributes"] = set(vars(module))
        state[f"{name}: tracks"] = getattr(module, "track_running_stats", None)
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        state[name] = tensor.detach().clone()
        state[f"{name}: grad"] = None if tensor.grad is None else tensor.grad.clone()
        state[f"{name}: requires_grad"] = tensor.requires_grad
        state[f"{name}: version"] = tensor._version
    return state


def assert_untouched(model: nn.Module, before: dict[str, Any]) -> None:
    after = everything(model)
    assert after.keys() == before.keys()
    for what, value in before.items():
        assert torch.equal(after[what], value) if isinstance(value, Tensor) else after[what] == value, what


def partly_frozen() -> ConvNet:
    """In training mode, with one frozen BatchNorm, one frozen weight, and gradients from the step before."""
    model = ConvNet().train()
    model.features[1].eval()
    model.features[3].weight.requires_grad_(False)
    functional.cross_entropy(model(batch()[0]), batch()[1]).backward()
    return model


MODELS: dict[str, Callable[[], nn.Module]] = {
    "train": lambda: ConvNet().train(),
    "eval": lambda: ConvNet().eval(),
    "partly frozen": partly_frozen,
}


class FailsLate(nn.Module):
    """Raises in its second forward, or in the first if there is only one."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.left = min(GRADIENTS.get(name, 2), 2)

    def forward(self, features: Tensor) -> Tensor:
        self.left -= 1
        if self.left == 0:
            raise KeyError("the model failed")
        return features


@pytest.mark.parametrize("call", ["__call__", "perturb_"])
@pytest.mark.parametrize("bn", ["eval", "batch"])
@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("name", [*GRADIENTS, *STOPPING])
def test_the_model_is_as_it_was(name: str, make: Callable[[], nn.Module], bn: str, call: str) -> None:
    model = make()
    before = everything(model)
    getattr(attacks.create(name, model, eps=4, bn=bn), call)(*batch())
    assert_untouched(model, before)


@pytest.mark.parametrize("call", ["__call__", "perturb_"])
@pytest.mark.parametrize("bn", ["eval", "batch"])
@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("name", [name for name in (*GRADIENTS, *STOPPING) if GRADIENTS.get(name) != 0])
def test_all_is_as_it_was_when_the_model_raises(name: str, make: Callable[[], nn.Module], bn: str, call: str) -> None:
    model = make()
    model.features.insert(3, FailsLate(name))
    before = everything(model)
    images, labels = batch()
    with pytest.raises(KeyError, match="the model failed"):
        getattr(attacks.create(name, model, eps=4, bn=bn), call)(images, labels)
    assert_untouched(model, before)
    assert torch.equal(images, batch()[0])  # also in place, and after a first step


@pytest.mark.parametrize("name", [*GRADIENTS, *STOPPING])
def test_a_method_stands_for_its_module(name: str) -> None:
    images, labels = batch()
    model = ConvNet().train()
    expected = attacks.create(name, model, eps=4, seed=0)(images, labels)
    before = everything(model)
    assert torch.equal(attacks.create(name, model.forward, eps=4, seed=0)(images, labels), expected)
    assert_untouched(model, before)


def test_a_module_that_has_every_attribute_is_itself() -> None:
    class Lenient(ConvNet):
        def __getattr__(self, name: str) -> Any:
            try:
                return super().__getattr__(name)
            except AttributeError:
                return None

    model = Lenient().train()
    before = everything(model)
    attacks.create("step_ll", model, eps=4)(batch()[0])
    assert_untouched(model, before)


@pytest.mark.parametrize("name", [*GRADIENTS, *STOPPING])
def test_two_models_sharing_weights(name: str) -> None:
    """A student in training mode and its teacher in evaluation mode share a trunk, its BatchNorm and a parameter."""
    student, teacher = ConvNet().train(), ConvNet(seed=1).eval()
    teacher.features[0] = student.features[0]
    teacher.features[1] = student.features[1]
    teacher.head.weight = student.head.weight
    before = everything(student), everything(teacher)
    images, labels = batch()
    for model, bn in ((student, "batch"), (teacher, "eval"), (student, "eval"), (teacher, "batch")):
        attacks.create(name, model, eps=4, bn=bn)(images, labels)
    assert_untouched(student, before[0])
    assert_untouched(teacher, before[1])


def test_the_input_is_not_seen_by_the_graph_of_the_training_step() -> None:
    """A tensor that autograd has saved is not silently corrupted by perturb_."""
    images = batch()[0]
    loss = nn.Conv2d(3, 1, 3)(images).sum()
    attacks.create("step_ll", ConvNet(), eps=4).perturb_(images)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


# --- modes while it runs ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("bn", ["eval", "batch"])
def test_modes_in_the_forward(make: Callable[[], nn.Module], bn: str) -> None:
    """Dropout is off; BatchNorm uses the batch's statistics with bn="batch", unless frozen in a training model."""
    model, modes = make(), {}
    frozen = model.training and not model.features[1].training
    for name, module in model.named_modules():
        module.register_forward_pre_hook(lambda module, _, name=name: modes.update({name: module.training}))
    attacks.create("step_ll", model, eps=4, bn=bn)(batch()[0])
    assert {name for name, training in modes.items() if training} == (
        set() if bn == "eval" else {"features.4"} if frozen else {"features.1", "features.4"}
    )


@pytest.mark.parametrize("bn", ["eval", "batch"])
def test_statistics_that_the_gradient_is_made_with(bn: str) -> None:
    images, labels = batch(16, dtype=torch.float64)
    model, plain = ConvNet().double().train(), ConvNet().double().train(bn == "batch")
    plain.features[6].eval()  # Dropout
    leaf = images.clone().requires_grad_()
    (grad,) = torch.autograd.grad(functional.cross_entropy(plain(leaf), labels, reduction="sum"), leaf)
    expected = (images + 8 / 255 * grad.sign()).clamp(0, 1)
    adv = attacks.create("fgsm", model, eps=8, bn=bn)(images, labels)
    assert ((adv - expected).abs() > 1e-6).sum() <= 3  # of 3,072


def test_autocasts_cached_weights_still_learn() -> None:
    """Inside one autocast block the training step reuses the weights that generation cast."""
    images, labels = batch()

    def gradients(generate: bool) -> list[Tensor]:
        model = ConvNet().eval()
        with torch.autocast("cpu", torch.bfloat16):
            if generate:
                with torch.no_grad():
                    attacks.create("step_ll", model, eps=4)(images)
            loss = functional.cross_entropy(model(images), labels)
        return list(torch.autograd.grad(loss, model.parameters()))

    assert all(map(torch.equal, gradients(False), gradients(True)))


def test_dropout_does_not_show() -> None:
    first, second = (attacks.create("iter_ll", ConvNet().train(), eps=4)(batch()[0]) for _ in range(2))
    assert torch.equal(first, second)


# --- wrappers --------------------------------------------------------------------------------------------------------


@pytest.fixture
def process_group(tmp_path) -> Iterator[None]:
    if not (torch.distributed.is_available() and torch.distributed.is_gloo_available()):
        pytest.skip("needs torch.distributed with gloo")
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


WRAPPERS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "DistributedDataParallel": nn.parallel.DistributedDataParallel,
    "DataParallel": nn.DataParallel,
    "torch.compile": lambda model: torch.compile(model, backend="eager"),
    "compiled DistributedDataParallel": lambda model: torch.compile(
        nn.parallel.DistributedDataParallel(model), backend="eager"
    ),
    "DistributedDataParallel of a compiled one": lambda model: nn.parallel.DistributedDataParallel(
        torch.compile(model, backend="eager")
    ),
}


@pytest.mark.usefixtures("process_group")
@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_generation_goes_through_the_raw_module(wrap: Callable[[nn.Module], nn.Module]) -> None:
    model, called = ConvNet().train(), set()
    wrapper = wrap(model)
    for module in wrapper.modules():
        module.register_forward_pre_hook(lambda module, _: called.add(module))
    before = everything(wrapper)
    adv = attacks.create("iter_ll", wrapper, eps=4)(batch()[0])
    assert called == set(model.modules())
    assert_untouched(wrapper, before)
    assert torch.equal(adv, attacks.create("iter_ll", model, eps=4)(batch()[0]))


@pytest.mark.usefixtures("process_group")
@pytest.mark.parametrize("casts", [True, False])
def test_a_policy_of_fsdp_is_not_taken_for_a_mistake_of_the_images(casts: bool) -> None:
    """BatchNorm always fails with it, because its statistics keep their dtype."""
    policy = fsdp.MixedPrecisionPolicy(param_dtype=torch.bfloat16, cast_forward_inputs=casts)
    model = fsdp.fully_shard(ConvNet(), mp_policy=policy)
    with pytest.raises(ValueError, match=r"step_ll: .* FSDP's mixed-precision policy .*: shard it without a policy"):
        attacks.create("step_ll", model, eps=4)(batch()[0])
    sharded = fsdp.fully_shard(ConvNet())
    with pytest.raises(ValueError, match=r"they are torch.float64 and its weights torch.float32: convert one"):
        attacks.create("step_ll", sharded, eps=4)(batch(dtype=torch.float64)[0])


def test_statistics_of_other_processes_are_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes whose examples take different numbers of steps would wait for each other forever."""
    model = nn.SyncBatchNorm.convert_sync_batchnorm(ConvNet())
    monkeypatch.setattr(module_modes, "_world_size", lambda: 2)
    with pytest.raises(ValueError, match="bn='batch' would reduce SyncBatchNorm's statistics"):
        attacks.create("step_ll", model, eps=4, bn="batch")(batch()[0])


@pytest.mark.filterwarnings("ignore:.*torch.jit")
@pytest.mark.parametrize("behind", [False, True])
def test_a_frozen_torchscript_network_has_no_mode(behind: bool) -> None:
    model, images = ConvNet().eval(), batch()[0]
    frozen = torch.jit.freeze(torch.jit.trace(model, images))
    adv = attacks.create("step_ll", (lambda x: frozen(x)) if behind else frozen, eps=4)(images)
    assert torch.equal(adv, attacks.create("step_ll", model, eps=4)(images))
