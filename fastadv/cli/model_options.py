"""The options that say which models a command measures, and on what images."""

from __future__ import annotations

import argparse
from functools import partial

from fastadv.cli.arguments import whole
from fastadv.cli.names import CENTRAL, DATA_SETS, FOLDER, INTERPOLATION, INTERPOLATIONS, LOADERS, SPACES
from fastadv.utils.devices import MOST_THREADS

HELP = (
    "a run's folder (its latest checkpoint), a checkpoint's folder, or NETWORK@FILE: any network of fastadv, timm or "
    "torchvision with a .safetensors, .pth, .pt or .pth.tar file of its weights, as in "
    "timm/resnet50@weights.safetensors, or timm/resnet50.a1_in1k@FILE for the library's own weights; or hf/DIR, a "
    "folder of transformers, of which no code is run; or path/to/file.py:FUNCTION (module:FUNCTION), which is run to "
    "make a network of your own. NAME is the name of its row (default: that of the run's folder, file or function)"
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which weights are measured, and on what images."""
    add = parser.add_argument
    add(
        "--averaged",
        action="store_true",
        help="use averaged weights: those of runs trained with --ema-decay, and of files that contain some",
    )
    add("--data", metavar="DIR", help="the data set's folder (default: the one that the runs were trained from)")
    add(
        "--dataset",
        metavar="NAME",
        choices=(*DATA_SETS, FOLDER),
        help=f"the data set, one of {', '.join(DATA_SETS)}, or folder: images in DIR/CLASS/IMAGE, with the options for "
        "imagenet (default: the one that the runs were trained on; required if all models are from files)",
    )
    add(
        "--space",
        action="append",
        default=[],
        metavar="[NAME=]SPACE",
        help=f"how pixels become the input of models from files: {', '.join(SPACES)}, or the mean and std of "
        "torchvision's Normalize, as in 0.5,0.5,0.5/0.25,0.25,0.25; with NAME=, for that model only (default: what the "
        "weights are known to need)",
    )
    add(
        "--size",
        "--data.size",
        type=int,
        metavar="N",
        help="imagenet: height and width of the input of models from files, in pixels; required unless the file or the "
        "name of the library's own weights determines it",
    )
    add(
        "--central",
        type=float,
        metavar="SHARE",
        help=f"imagenet: show models from files the central SHARE of each side of an image (default: what the weights "
        f"are known to need, else what the runs use, else {CENTRAL})",
    )
    add(
        "--keep-aspect",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="imagenet: crop a square whose side is --central times the shorter side, instead of --central times each "
        "side (default: what the weights are known to need, else what the runs use, else no)",
    )
    add(
        "--interpolation",
        metavar="NAME",
        choices=INTERPOLATIONS,
        help=f"imagenet: how to resize images, {' or '.join(INTERPOLATIONS)} (default: what the weights are known to "
        f"need, else what the runs use, else {INTERPOLATION})",
    )
    add(
        "--loader",
        metavar="NAME",
        choices=LOADERS,
        default="auto",
        help=f"imagenet: library that decodes images, one of {', '.join(LOADERS)}; auto is dali if it is installed "
        "(default: auto, whatever the runs used)",
    )
    add(
        "--workers",
        type=partial(whole, least=0, most=MOST_THREADS),
        metavar="N",
        help="imagenet: threads (dali) or processes (torchvision) that decode (default: this machine's cores, divided "
        "among the processes that torchrun starts on it)",
    )
    add("--download", action="store_true", help="fetch the data set's files into its folder if they are missing")
