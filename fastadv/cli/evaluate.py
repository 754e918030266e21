"""``fastadv evaluate``: the paper's Tables 1 and 2 for your own checkpoints and weight files."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from fastadv.cli.arguments import Parser, add_machine_options, create_parser, number, parse, whole
from fastadv.cli.card_options import add_card_options, check_card_options
from fastadv.cli.exits import imported
from fastadv.cli.model_options import HELP, add_options
from fastadv.cli.names import ATTACKS
from fastadv.utils.suggestions import unit_scale_hint

_DESCRIPTION = """\
Measure top-1 and top-5 accuracy on clean images and under attacks of several sizes, laid out as in Tables 1 and 2 of
"Adversarial Machine Learning at Scale", with Wilson's 95 % confidence intervals. Each model is attacked with its own
gradients.
"""

_EPILOG = """\
Every number is recorded in OUT/robustness.jsonl as soon as it is measured. After an interruption, run the same command
again to continue. If you add an attack, an eps or a model, only what is new is measured.

The file keeps all records. Tables and figures are made from those on the same images and with the same seed as this
command's; those that showed other records are removed, and a line says so.

On several GPUs, share the images among them by: torchrun --nproc-per-node=G -m fastadv evaluate ...

examples:
  fastadv evaluate runs/standard runs/adversarial --out results
  fastadv evaluate "Adv. training=runs/adversarial/checkpoints/step-00001200" \\
      --attacks step_ll --eps 2,4 --limit 1000
  fastadv evaluate ResNet=timm/resnet18@weights.safetensors \\
      --dataset cifar10 --data DIR --space imagenet
  fastadv evaluate runs/adversarial --attacks pgd,pgd:steps=40:alpha=1 --eps 8
  fastadv evaluate runs/adversarial --suite quick --eps 2,4 --fail-under 40

exit codes:
  0         done
  1         a file could not be read or written
  2         a mistake in the command or the data
  3         the worst case is below --fail-under
  130, 143  stopped by SIGINT (Ctrl-C) or SIGTERM; the same command continues
"""


def main(argv: Sequence[str]) -> int:
    """Run ``fastadv evaluate`` with these arguments; returns the exit code."""
    parser = _parser()
    arguments = parse(parser, argv)
    check_card_options(parser, arguments, argv)
    if arguments.suite is not None:
        from fastadv.evaluate.card.suites import SUITES  # imports PyTorch

        arguments.attacks = list(SUITES[arguments.suite])
    code: int = imported("fastadv.cli.measure_accuracy", "fastadv evaluate").run(arguments)
    return code


def _parser() -> Parser:
    parser = create_parser("fastadv evaluate", description=_DESCRIPTION, epilog=_EPILOG)
    add = parser.add_argument
    add_subjects(parser, attacks_by_default="step_ll,iter_ll,iter_basic", eps_by_default="2,4,8,16")
    add_options(parser)
    add(
        "--limit",
        type=whole,
        metavar="N",
        help="use N test images, drawn at random by the seed (default: all)",
    )
    add_run_options(parser)
    add_card_options(parser)
    add(
        "--no-early-stop",
        "--no_early_stop",
        dest="early_stop",
        action="store_false",
        help="judge attacks by their last iterate alone, as the paper does; by default an image counts as "
        "misclassified as soon as one iterate is, and takes no more gradients",
    )
    add(
        "--save-images",
        "--save_images",
        type=Path,
        metavar="DIR",
        help="write the first images clean and adversarial as PNG, rounded to 8 bits, and say what rounding changes",
    )
    add("--first", type=whole, default=16, metavar="N", help="images that --save-images writes (default: %(default)s)")
    add(
        "--dry-run",
        "--dry_run",
        action="store_true",
        help="print what would be measured, its gradients and forward passes, and an estimate of the time",
    )
    add("--out", type=Path, default=Path("evaluation"), metavar="DIR", help="output folder (default: %(default)s)")
    return parser


def add_subjects(parser: argparse.ArgumentParser, *, attacks_by_default: str, eps_by_default: str) -> None:
    """Add the models, the attacks and the sizes."""
    add = parser.add_argument
    add("models", nargs="+", metavar="[NAME=]MODEL", help=HELP)
    add(
        "--attacks",
        type=attack_list,
        default=attacks_by_default,
        metavar="A,B,...",
        help=f"any of {', '.join(ATTACKS)}, or your own as path/to/file.py:CLASS or module:CLASS, which is run; "
        "options of an attack follow its name, as in pgd:steps=20:alpha=2 (default: %(default)s)",
    )
    add(
        "--eps",
        type=eps_list,
        default=eps_by_default,
        metavar="E,F,...",
        help="sizes of the perturbation in pixel values of [0, 255]; with norm=l2, its L2 norm over all pixels: "
        "the 0.5 of benchmarks on images in [0, 1] is 127.5 (default: %(default)s)",
    )


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how models are measured."""
    add = parser.add_argument
    add(
        "--batch-size",
        "--batch_size",
        type=whole,
        default=100,
        metavar="N",
        help="images at a time (default: %(default)s)",
    )
    add(
        "--seed",
        type=partial(whole, least=0),
        default=0,
        metavar="N",
        help="seed of the attacks' random numbers, and of the images that --limit draws (default: %(default)s)",
    )
    add("--json", action="store_true", help="print the results as JSON on standard output, in place of tables")
    add(
        "--fast",
        action="store_true",
        help="make the same examples, up to rounding, in less time: BatchNorm is folded, and a GPU runs CUDA graphs",
    )
    add_machine_options(parser)
    add(
        "--cudnn-benchmark",
        "--cudnn_benchmark",
        action="store_true",
        help="on a GPU, let cuDNN try its algorithms and keep the fastest; two runs may then differ by rounding",
    )
    add(
        "--tf32",
        action="store_true",
        help="on a GPU, compute float32 matrix products in TensorFloat-32, with 10 bits of mantissa instead of 23; "
        "their relative error grows to about 1e-3, and results differ from those without it",
    )


# --- values of options -----------------------------------------------------------------------------------------------


def attack_list(text: str) -> list[str]:
    """Parse attacks, each a name that options may follow."""
    from fastadv.evaluate.attack_specs import parse_attack  # imports PyTorch

    texts = list(dict.fromkeys(part.strip() for part in text.split(",")))
    if "" in texts:
        raise argparse.ArgumentTypeError(f"a name is missing before or after a comma, got {text!r}")
    try:
        for one in texts:
            parse_attack(one)
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return texts


def eps_list(text: str) -> list[float]:
    """Parse sizes in pixel values; sorted, each once. The largest possible one depends on an attack's norm."""
    sizes = [number(part) for part in text.split(",")]
    if not all(0 < size < math.inf for size in sizes):
        raise argparse.ArgumentTypeError(
            f"each eps must be a number above 0, in pixel values of [0, 255], got {text!r}"
            + (unit_scale_hint(text.split(",")[0]) or ("; clean accuracy is always measured" if 0 in sizes else ""))
        )
    return sorted(set(sizes))
