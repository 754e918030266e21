"""Configuration of a training run: dataclasses whose fields are recipe keys and command-line options."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Any, Literal, get_args

from fastadv.data.config import DataConfig
from fastadv.eps import TruncatedNormalEps
from fastadv.train.phases import CHANGEABLE, changed, check_phase, epochs_clash, leaves
from fastadv.train.sentinel_config import Method, SentinelConfig
from fastadv.utils.devices import MOST_THREADS
from fastadv.utils.validation import check_integer, check_one_of, check_real, check_switches

TrainingName = Literal["algorithm1", "paired", "free", "fast", "trades"]
BatchNormMode = Literal["eval", "batch"]
RunningStatistics = Literal["shared", "split"]
OptimizerName = Literal["rmsprop", "rmsprop_tf", "sgd", "adamw"]
PrecisionName = Literal["float32", "bfloat16"]
ScheduleName = Literal["constant", "cosine", "exponential"]

_UNUSED_BY_TRAINING = {
    "algorithm1": ("replays", "running_statistics", "beta"),
    "paired": ("replays", "k", "bn", "beta", "sources"),
    "free": (
        *("name", "k", "lambda_", "start_after", "eps_warmup", "bn"),
        *("running_statistics", "label_smoothing", "beta", "sources"),
    ),
    "fast": ("name", "k", "lambda_", "replays", "running_statistics", "beta"),
    "trades": ("name", "k", "lambda_", "replays", "running_statistics", "label_smoothing", "sources"),
}
_FIXED_BY_TRAINING = {"free": (), "fast": ("steps", "random_start", "norm", "targets"), "trades": ("aux_weight",)}
_EPOCHS = 10


class UnusedOptionsError(ValueError):
    """Options are set that have no effect.

    Args:
        message: the message.
        defaults: the options' names, with the values that they have unless they are set.
    """

    def __init__(self, message: str, defaults: Mapping[str, Any]) -> None:
        super().__init__(message)
        self.defaults = defaults


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The network. Its number of classes and of input channels are those of the data set."""

    name: str = "small_cnn"
    """Network: small_cnn, inception_v3, inception_v4, or any classification network of timm or torchvision by its name
    there, such as timm/resnet50 or torchvision/resnet50. Each starts from random weights, unless init names others."""

    init: str | None = None
    """Weights to start from; short form: --init. A .safetensors, .pth, .pt, .ckpt or .pth.tar file of a state
    dictionary, which is read without running code in it, or the folder of a run or a checkpoint of fastadv. They must
    fit the network, and data.space must be the one that they were trained in. A resumed run does not read them again.
    null starts from random weights."""

    init_head: bool = True
    """Take the classifier from init, too. false leaves it at random weights, for other classes than those of init: all
    weights whose shapes depend on the number of classes, those of auxiliary classifiers included."""

    options: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments of the network, such as width or dropout: --model.options.dropout 0 switches dropout off.
    small_cnn has width (a multiplier: 2 doubles the numbers of filters), activation, dropout and deeper (two more
    blocks); inception_v3 these and aux (the auxiliary head). Activations are relu, relu6, tanh, elu and
    relu_decay:<beta>. inception_v4 and timm/<name> take timm's options, such as drop_rate, torchvision/<name>
    torchvision's."""

    def __post_init__(self) -> None:
        if self.init is not None and (not isinstance(self.init, str) or not self.init):
            raise ValueError(f"model.init must be the path of weights, or null, got {self.init!r}")
        check_switches(**{"model.init_head": self.init_head})
        if self.init is None and not self.init_head:
            raise ValueError("model.init_head false has no effect without model.init: all weights start at random")


@dataclass(frozen=True, kw_only=True)
class AttackConfig:
    """How the first k examples of each minibatch become adversarial (Algorithm 1). Sizes are in pixel values."""

    training: TrainingName = "algorithm1"
    """algorithm1 is the paper's method. paired trains on m / 2 images and on adversarial versions of them, made by a
    one-step attack: fgsm adds nothing to the cost of standard training if attack.label_smoothing equals
    label_smoothing; other methods add a sixth. trades (Zhang et al., 2019) trains on m clean images and on how far ten
    steps at one fixed eps move their predictions. Two others make all examples adversarial, at one fixed eps, using the
    true label: free (Shafahi et al., 2019) replays each minibatch, and one backward pass gives the gradients of weights
    and images, for little more than the cost of standard training; fast (Wong et al., 2020) takes one step from a
    random start, and costs as much as algorithm1 with k = m. It is unrelated to --fast, which speeds up all of them.
    The step length of these three is attack.options.alpha, by default eps for free, 1.25 eps for fast and 2.5 eps /
    attack.options.steps for trades. Options that the chosen method does not use are refused."""

    replays: int = 1
    """free: how often each minibatch is repeated, one iteration each time; the authors use 8 for CIFAR-10 and 4 for
    ImageNet. An epoch is a pass over the data and costs as many ordinary ones: divide epochs by it to compare."""

    name: str = "step_ll"
    """Attack. The paper recommends step_ll or step_rnd, and warns of attacks that use the true label, such as fgsm
    (section 4.2)."""

    k: int = 16
    """Adversarial examples per minibatch: 0 is standard training, m leaves no clean example."""

    lambda_: float = 0.3
    """Weight of an adversarial example in the loss; a clean one weighs 1."""

    eps: float | None = None
    """One fixed size for every example. null, as in the paper, draws one for each example from |N(0, eps_sigma)|
    truncated to [0, eps_upper]; a fixed size gives robustness to that size only (section 3)."""

    eps_sigma: float = 8.0
    """Standard deviation of the normal distribution behind the drawn sizes; not used with a fixed eps."""

    eps_upper: float = 16.0
    """Largest size that is drawn; not used with a fixed eps."""

    start_after: int = 0
    """Iterations on clean examples only before adversarial training starts."""

    eps_warmup: int = 0
    """Iterations, from start_after on, in which eps grows linearly from 0, fixed or drawn; the first has 1 / eps_warmup
    of it. A step length that is set, attack.options.alpha, grows with it. Not with free."""

    bn: BatchNormMode = "eval"
    """BatchNorm during generation: eval uses the running statistics, batch those of the k examples. eval is the default
    because it attacks the network as it will be deployed, makes an example independent of the others in its minibatch,
    and works for k = 1. The running statistics lag behind in the first iterations, which start_after skips."""

    label_smoothing: float = 0.0
    """Label smoothing of the cost that the attack follows; the loss has its own. An attack that leads away from the
    true class moves an example towards it if the network is more confident than the smoothed target."""

    beta: float = 6.0
    """trades: weight of the divergence of the adversarial predictions from the clean ones; the clean cross-entropy
    weighs 1. A larger beta gives more robustness, and less accuracy on clean images."""

    running_statistics: RunningStatistics = "shared"
    """paired: which images move BatchNorm's running statistics: clean and adversarial ones (shared), or clean ones
    alone (split), for accuracy on clean images."""

    sources: list[str] = field(default_factory=list)
    """algorithm1 and fast: static networks for ensemble adversarial training (Tramèr et al., 2018), each a run's or a
    checkpoint's folder, NETWORK@FILE, as in timm/resnet50@weights.safetensors, hf/DIR, a folder of transformers, or
    path/to/file.py:FUNCTION, which makes a network of your own: --attack.sources A B C. In each minibatch the examples
    are made on the network that is trained or on one of these, each with the same probability. They must be trained on
    the same classes."""

    options: dict[str, Any] = field(default_factory=dict)
    """Further keyword arguments of the attack, such as alpha or steps."""

    def __post_init__(self) -> None:
        from fastadv import attacks
        from fastadv.attacks.base import ball_of

        check_one_of("attack.training", self.training, get_args(TrainingName))
        check_one_of("attack.name", self.name, attacks.names())
        check_integer("attack.k", self.k, least=0)
        check_real("attack.lambda_", self.lambda_, least=0)
        ball = ball_of(attacks.get(self.name), self.options)
        largest = math.inf if ball == "l2" else 255.0  # the pixel range of every data.space
        if self.eps is not None:
            check_real("attack.eps", self.eps, least=0, most=largest)
        check_real("attack.eps_sigma", self.eps_sigma, above=0)
        check_real("attack.eps_upper", self.eps_upper, above=0, most=largest)
        check_real("attack.beta", self.beta, least=0)
        check_integer("attack.start_after", self.start_after, least=0)
        check_integer("attack.eps_warmup", self.eps_warmup, least=0)
        check_real("attack.label_smoothing", self.label_smoothing, least=0, below=1)
        check_one_of("attack.bn", self.bn, get_args(BatchNormMode))
        check_one_of("attack.running_statistics", self.running_statistics, get_args(RunningStatistics))
        if not isinstance(self.sources, list) or not all(isinstance(one, str) and one for one in self.sources):
            raise ValueError(f"attack.sources must be a list of networks, as in [runs/a, runs/b], got {self.sources!r}")
        twice = next((one for number, one in enumerate(self.sources) if one in self.sources[:number]), None)
        if twice is not None:
            raise ValueError(f"attack.sources names {twice} twice: each is chosen with the same probability")
        for name in ("bn", "eps", "label_smoothing", "seed", "space", "generator"):
            if name in self.options:
                raise ValueError(f"attack.options must not set {name}, which the configuration has elsewhere")
        self._check_training()

    def _check_training(self) -> None:
        """Check that no option is set that this kind of training ignores, and none is missing that it needs."""
        defaults = {option.name: option.default for option in fields(self)} | {"sources": []}
        unused = [name for name in _UNUSED_BY_TRAINING[self.training] if getattr(self, name) != defaults[name]]
        if unused:
            has, it = ("has", "it") if len(unused) == 1 else ("have", "them")
            given = ", ".join(f"attack.{name}" for name in unused)
            raise UnusedOptionsError(
                f"{given} {has} no effect with attack.training {self.training}: leave {it} out",
                {f"attack.{name}": defaults[name] for name in unused},
            )
        if self.training in ("algorithm1", "paired"):
            return
        suffix = f"with attack.training {self.training},"
        one = " one size for all examples, such as 16," if self.eps is None else ""
        needs = [partial(check_real, f"attack.eps,{one} {suffix}", self.eps, above=0)]
        if self.training == "free":
            needs.append(partial(check_integer, f"attack.replays, {suffix}", self.replays, least=2))
        _all(needs)
        for name in self.options:
            if name in _FIXED_BY_TRAINING[self.training] or (self.training == "free" and name != "alpha"):
                raise ValueError(f"attack.options must not set {name} with attack.training {self.training}")

    @property
    def size(self) -> float | TruncatedNormalEps:
        """The attack's ``eps``: the fixed number, or the distribution."""
        return TruncatedNormalEps(sigma=self.eps_sigma, upper=self.eps_upper) if self.eps is None else self.eps


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """The optimiser."""

    name: OptimizerName = "rmsprop"
    """rmsprop, rmsprop_tf (the paper's: TensorFlow's form, with eps inside the root and the learning rate inside the
    momentum), sgd or adamw."""

    lr: float = 0.045
    """Learning rate, before the schedule; 0.045 is the paper's for RMSProp. It is for a whole iteration, that is,
    m x accumulate x processes examples, 1,600 in the paper, and is never scaled to their number."""

    weight_decay: float = 0.0
    """Weight decay; 0 switches it off."""

    decay_norm_and_bias: bool = False
    """Decay the parameters of normalisation layers and the biases too."""

    options: dict[str, Any] = field(default_factory=dict)
    """Further keyword arguments of the PyTorch optimiser. Unless given: momentum 0.9 for sgd; alpha 0.9, momentum 0.9
    and eps 1.0 for rmsprop and rmsprop_tf, the constants Inception networks are trained with; on a GPU, fused for sgd
    and adamw, which differs from PyTorch's other forms by rounding."""

    def __post_init__(self) -> None:
        check_one_of("optimizer.name", self.name, get_args(OptimizerName))
        check_real("optimizer.lr", self.lr, above=0)
        check_real("optimizer.weight_decay", self.weight_decay, least=0)


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """The learning rate over time."""

    name: ScheduleName = "constant"
    """constant; cosine: down to 0 at the end of the run; exponential: in steps."""

    warmup: int = 0
    """Iterations of linear warm-up from 0."""

    decay: float = 0.94
    """exponential: the factor."""

    decay_every: float = 2.0
    """exponential: epochs between two applications of the factor."""

    def __post_init__(self) -> None:
        check_one_of("schedule.name", self.name, get_args(ScheduleName))
        check_integer("schedule.warmup", self.warmup, least=0)
        check_real("schedule.decay", self.decay, above=0, most=1)
        check_real("schedule.decay_every", self.decay_every, above=0)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A training run: the same configuration, seed and number of CPU threads give the same weights."""

    data: DataConfig = field(default_factory=DataConfig)
    """The images."""

    model: ModelConfig = field(default_factory=ModelConfig)
    """The network."""

    attack: AttackConfig = field(default_factory=AttackConfig)
    """The adversarial examples."""

    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """The optimiser."""

    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    """The learning rate over time."""

    sentinel: SentinelConfig = field(default_factory=SentinelConfig)
    """Notices catastrophic overfitting."""

    epochs: int = _EPOCHS
    """Passes over the training set; with phases, the sum of theirs, and better left out."""

    phases: list[dict[str, Any]] = field(default_factory=list)
    """Parts of the run, one after another. Each names its epochs and what differs from the configuration's other
    fields in them: m, precision, data.size, data.least_area, optimizer.lr, and attack.name, k, lambda_, eps, eps_sigma,
    eps_upper and options. Weights, their averages, the optimiser's state and the schedule go on. On the command line
    they are given as a whole: --phases '[{epochs: 4, data: {size: 64}}, {epochs: 2}]', or --phases '[]' for none.
    data.size is that of one of the phases: costs are relative to it, and other commands read images in it. The test
    after each epoch is in the size of its phase."""

    m: int = 32
    """Minibatch size, adversarial examples included (so an epoch of paired training has twice the iterations); per
    process, if torchrun starts several. Also --minibatch, because torchrun takes --m for one of its own options."""

    accumulate: int = 1
    """Minibatches of each process per iteration: their gradients are averaged before the weights are updated. 50
    processes with 1 and 25 with 2 train on the same examples, as each minibatch has its own m, k and batch statistics.
    An iteration is one update of the weights, wherever iterations are counted. A resumed run keeps the number of
    minibatches per iteration: accumulate is adapted to the number of processes, with a warning."""

    label_smoothing: float = 0.0
    """Share of the target spread evenly over all classes in the loss; 0 switches label smoothing off. The attack's cost
    has its own, attack.label_smoothing; free training follows the loss."""

    aux_weight: float = 0.4
    """Weight of the loss at the network's auxiliary logits, if it has any, as inception_v3 has; 0.4 is Inception's.
    The attack follows the main logits alone: attack.options.aux_weight 0.4 adds the auxiliary ones to its cost."""

    clip_grad_norm: float | None = None
    """Clip the gradient of an iteration to this L2 norm, over all parameters. null is no limit."""

    ema_decay: float | None = None
    """Average the weights over the iterations with this decay, such as 0.9999, and test and save the averages beside
    the weights. After the first iteration the decay is TensorFlow's (1 + n) / (10 + n), n from 0, up to this value, so
    that the first iterations are soon forgotten. null is no averaging."""

    precision: PrecisionName = "float32"
    """bfloat16 runs the network in autocast: in training, in generation and in the test after each epoch. Weights and
    accumulated values stay in float32."""

    fast: bool = False
    """Switch on everything that speeds up training and changes results by no more than rounding: channels_last and
    attack.options.fast. It does not include precision bfloat16, which changes results, or compile, which takes minutes
    first. The training method called fast is attack.training fast, and works with or without this option."""

    channels_last: bool = False
    """Keep weights and images in the memory layout NHWC, the fastest for convolutions on GPUs in bfloat16."""

    cudnn_benchmark: bool = False
    """On a GPU, have cuDNN try its algorithms for each new shape of a convolution and keep the fastest. The choice
    depends on the machine and the moment: two runs, or a run and its continuation, may then differ by rounding. Set for
    the duration of the run."""

    tf32: bool = False
    """On a GPU, let float32 matrix products round their factors to TensorFloat-32, with 10 instead of 23 bits of
    mantissa, which tensor cores compute faster: each product has a relative error of up to about 1e-3, and the run no
    longer reproduces one without this option or on a CPU. PyTorch's convolutions use TensorFloat-32 by default. Set for
    the duration of the run."""

    compile: bool = False
    """Compile the training pass by torch.compile. If that fails, a warning says so and training continues without it.
    attack.options.compile compiles generation."""

    capture: bool = False
    """Record the whole iteration (generation, both passes and the optimiser's step) as CUDA graphs, and replay them: an
    iteration then takes about ten launches instead of hundreds. For networks whose kernels take less time than their
    launches. Needs one process and accumulate 1; not with compile, attack.training free or paired, attack.sources or
    attack.eps_warmup. If recording fails, a warning says why and training continues without it. attack.options.capture
    records generation alone."""

    sync_bn: bool = False
    """Compute BatchNorm's statistics over the minibatches of all processes, at the price of two collectives per layer
    and iteration. Useful only if m is small: the paper's statistics are of each machine's 32 images. GPUs only, and
    only with attack.bn eval, as generation must not wait for other processes."""

    seed: int = 0
    """Fixes the initial weights, dropout, the order of the examples, and the attack's random draws."""

    device: str = "auto"
    """Where to train: cpu, cuda, cuda:1, ...; auto is cuda if there is a GPU."""

    threads: int | None = None
    """CPU threads; null leaves the choice to PyTorch. The last bits of sums depend on it: fix it to repeat a run
    exactly on another machine."""

    checkpoint_every: int = 0
    """Iterations between checkpoints, in addition to the one at the end of each epoch; 0 is none. If a process dies,
    the iterations since the last checkpoint are lost."""

    keep: int = 3
    """Number of checkpoints to keep; older ones are deleted."""

    log_every: int = 10
    """Iterations between two lines of log.jsonl. On a GPU, the host waits only in these iterations, and once in about a
    second: then it learns of a loss that is not finite, and stops training."""

    def __post_init__(self) -> None:
        for name in ("epochs", "m", "accumulate", "keep", "log_every"):
            check_integer(name, getattr(self, name), least=1)
        check_integer("checkpoint_every", self.checkpoint_every, least=0)
        check_one_of("precision", self.precision, get_args(PrecisionName))
        check_integer("seed", self.seed, least=0, most=2**63 - 1)
        check_real("label_smoothing", self.label_smoothing, least=0, below=1)
        check_real("aux_weight", self.aux_weight, least=0)
        if self.clip_grad_norm is not None:
            check_real("clip_grad_norm", self.clip_grad_norm, above=0)
        if self.ema_decay is not None:
            check_real("ema_decay", self.ema_decay, above=0, below=1)
        if self.threads is not None:
            check_integer("threads", self.threads, least=1, most=MOST_THREADS)
        if self.attack.training == "algorithm1":
            self._check_mixture()
        if self.attack.training == "paired" and self.m % 2:
            raise ValueError(
                f"with attack.training paired, m must be even (m / 2 images, each in two versions), got {self.m}"
            )
        if self.capture:
            self._check_capture()
        if self.phases:
            self._check_phases()
        phases = self.in_phases()
        if self.attack.sources and self.attack.training == "algorithm1" and not any(one.attack.k for one in phases):
            raise ValueError("attack.sources has no effect with attack.k 0: there are no adversarial examples to make")
        self.sentinel.check_use([_method(phase.attack) for phase in phases], self.attack.sources)

    def _check_phases(self) -> None:
        """Check each phase, and that none contradicts another field; ``epochs`` becomes the sum of theirs."""
        for number, phase in enumerate(self.phases):
            check_phase(phase, f"phases[{number}]")
        phases = [self.phase(number) for number in range(len(self.phases))]
        total = sum(phase.epochs for phase in phases)
        if self.epochs not in (_EPOCHS, total):
            raise ValueError(epochs_clash(self.epochs, total))
        object.__setattr__(self, "epochs", total)
        self._check_used_by_a_phase(phases)

    def _check_used_by_a_phase(self, phases: Sequence[TrainConfig]) -> None:
        """Check that a phase uses data.size, and the value of each field that was set for all of them."""
        sizes = list(dict.fromkeys(phase.data.size for phase in phases))
        if self.data.size not in sizes:
            raise ValueError(
                f"data.size is {self.data.size}, and those of the phases are {', '.join(map(str, sizes))}: set it to "
                f"the one that the network is for"
            )
        default, named = TrainConfig(), [dict(leaves(phase)) for phase in self.phases]
        for name in CHANGEABLE:
            if name in ("epochs", "data.size", "attack.options") or not all(name in of_phase for of_phase in named):
                continue
            if (value := _value(self, name)) != _value(default, name):
                raise ValueError(
                    f"{name} {value!r} has no effect, because each phase names its own: leave it out of a phase that "
                    f"is to have this value, or leave out this one"
                )

    def phase(self, number: int) -> TrainConfig:
        """The configuration of one phase: its changes applied, and no phases.

        Raises:
            ValueError: if the phase sets a value that is out of range or without effect; names the phase.
        """
        phase = self.phases[number]
        # Whether these two have an effect depends on all phases together.
        alone = replace(self, phases=[], sentinel=SentinelConfig(), attack=replace(self.attack, sources=[]))
        try:
            config = changed(alone, phase)
        except ValueError as error:
            given = str(error).startswith(tuple(name for name, _ in leaves(phase)))
            raise ValueError(f"phases[{number}]{'.' if given else ': '}{error}") from error
        object.__setattr__(config, "sentinel", self.sentinel)
        object.__setattr__(config.attack, "sources", self.attack.sources)
        drawn = [name for name, _ in leaves(phase) if name in ("attack.eps_sigma", "attack.eps_upper")]
        if drawn and config.attack.eps is not None:
            raise ValueError(
                f"phases[{number}].{drawn[0]} has no effect with attack.eps {config.attack.eps}, one fixed size: set "
                f"attack.eps to null there, or leave it out"
            )
        return config

    def in_phases(self) -> list[TrainConfig]:
        """The configuration of each phase, in order; this one alone for a run without phases."""
        return [self.phase(number) for number in range(len(self.phases))] or [self]

    def _check_capture(self) -> None:
        """Check that nothing is set that a recorded iteration does not support."""
        from fastadv import attacks
        from fastadv.attacks.iterative import PaperIterativeAttack

        options = self.attack.options
        varying = issubclass(attacks.get(self.attack.name), PaperIterativeAttack) and "steps" not in options
        clashes = {
            f"accumulate {self.accumulate}": self.accumulate > 1,
            "attack.eps_warmup": self.attack.eps_warmup > 0,
            "compile": self.compile,
            f"attack.training {self.attack.training}": self.attack.training in ("free", "paired"),
            "attack.sources, from which each minibatch draws": bool(self.attack.sources),
            "attack.options.compile": options.get("compile"),
            "attack.options.capture, which is a part of it": options.get("capture"),
            "attack.options.validate always: images within a recording are not checked": (
                options.get("validate") == "always"
            ),
            f"attack.name {self.attack.name} with sizes that are drawn, which change its number of steps: set "
            f"attack.eps or attack.options.steps": varying and self.attack.k > 0 and self.attack.eps is None,
        }
        refused = [name for name, clash in clashes.items() if clash]
        if refused:
            raise ValueError(f"capture does not go with {'; nor with '.join(refused)}")

    def _check_mixture(self) -> None:
        """Check that k fits into a minibatch and leaves an example with weight."""
        if self.attack.k > self.m:
            raise ValueError(f"attack.k must be at most the minibatch size m = {self.m}, got {self.attack.k}")
        if self.attack.k == self.m and self.attack.lambda_ == 0:
            raise ValueError("attack.lambda_ must be positive where attack.k = m: no example is left to learn from")

    @property
    def images_per_minibatch(self) -> int:
        """Images of a minibatch: m, or half of it where each is shown twice."""
        return self.m // 2 if self.attack.training == "paired" else self.m

    @property
    def in_channels_last(self) -> bool:
        """Whether weights and images are in channels_last: set by either of two options."""
        return self.channels_last or self.fast


def _value(config: TrainConfig, name: str) -> Any:
    """The value of a field by its dotted name."""
    section, _, inner = name.rpartition(".")
    return getattr(getattr(config, section) if section else config, inner)


def _method(attack: AttackConfig) -> Method:
    return Method(attack.training, attack.name, attack.k, attack.options)


def _all(checks: Sequence[Callable[[], None]]) -> None:
    """Run all checks and raise one error for all that fail, so that a command can be fixed in one go."""
    messages = []
    for check in checks:
        try:
            check()
        except ValueError as error:
            messages.append(str(error))
    if messages:
        raise ValueError("; ".join(messages))
