"""The options that say which models a command measures, and on what images."""

from __future__ import annotations

import argparse
from functools import partial

from fastadv.cli.arguments import whole
from fastadv.cli.names import CENTRAL, DATA_SETS, INTERPOLATION, INTERPOLATIONS, LOADERS, SPACES
from fastadv.utils.devices import MOST_THREADS

HELP = (
    "a run's folder (its latest checkpoint), a checkpoint's folder, or NETWORK@FILE: any network of fastadv, timm or "
    "torchvision with a .safetensors, .pth, .pt or .pth.tar file of its weights, as in "
    "timm/resnet50@weights.safetensors, or timm/resnet50.a1_in1k@FILE for the library's own weights; NAME is the name "
    "of its row (default: that of the run's folder or of the file)"
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which weights are measured, and on what images."""
    add = parser.add_argument
    add(
        "--averaged",
        action="store_true",
        help="use the averaged weights of runs that were trained with --ema-decay, and of files that hold any",
    )
    add("--data", metavar="DIR", help="the data set's folder (default: the one that the runs were trained from)")
    add(
        "--dataset",
        metavar="NAME",
        choices=DATA_SETS,
        help=f"the data set, one of {', '.join(DATA_SETS)} (default: the one that the runs were trained on; required "
        "if all models are from files)",
    )
    add(
        "--space",
        action="append",
        default=[],
        metavar="[NAME=]SPACE",
        help=f"how pixels become the input of models from files: {', '.join(SPACES)}, or the mean and std that "
        "torchvision's Normalize takes, as in 0.5,0.5,0.5/0.25,0.25,0.25; with NAME=, for that model alone (default: "
        "what the weights are known to need, if anything is known)",
    )
    add(
        "--size",
        type=int,
        metavar="N",
        help="imagenet: input size of models from files, in pixels a side; required unless the file says it, or the "
        "name of the library's own weights does",
    )
    add(
        "--central",
        type=float,
        metavar="SHARE",
        help=f"imagenet: the central share of an image's sides that models from files are shown (default: as known of "
        f"the weights, as in the runs, or {CENTRAL})",
    )
    add(
        "--keep-aspect",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="imagenet: crop a square, of that share of the shorter side, instead of that share of both sides "
        "(default: as known of the weights, as in the runs, or of both sides)",
    )
    add(
        "--interpolation",
        metavar="NAME",
        choices=INTERPOLATIONS,
        help=f"imagenet: how images are resized, {' or '.join(INTERPOLATIONS)} (default: as known of the weights, as "
        f"in the runs, or {INTERPOLATION})",
    )
    add(
        "--loader",
        metavar="NAME",
        choices=LOADERS,
        default="auto",
        help=f"imagenet: what decodes images, one of {', '.join(LOADERS)}; auto is dali if it is installed (default: "
        "auto, whatever the runs used)",
    )
    add(
        "--workers",
        type=partial(whole, least=0, most=MOST_THREADS),
        metavar="N",
        help="imagenet: threads (dali) or processes (torchvision) that decode (default: this machine's cores, divided "
        "among the processes that torchrun starts on it)",
    )
    add("--download", action="store_true", help="fetch the data set's files into its folder if they are missing")
