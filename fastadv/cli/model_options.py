"""The options that say which models a command measures, and on what."""

from __future__ import annotations

import argparse
from functools import partial
from typing import get_args

from fastadv import data
from fastadv.cli.arguments import whole
from fastadv.data.config import DataConfig, LoaderName, SpaceName
from fastadv.data.transforms.preprocessing import InterpolationName
from fastadv.utils import devices

HELP = (
    "a run's folder (its latest checkpoint), a checkpoint's folder, or NETWORK@FILE: any network of fastadv, timm or "
    "torchvision with a .safetensors, .pth, .pt or .pth.tar file of its weights, as in "
    "timm/resnet50@weights.safetensors, or timm/resnet50.a1_in1k@FILE for the library's own; NAME is the name of its "
    "row"
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options that say what models are measured on."""
    add = parser.add_argument
    add(
        "--averaged",
        action="store_true",
        help="the averaged weights of runs that were trained with --ema-decay, and of files that hold any",
    )
    add("--data", metavar="DIR", help="the data set's folder (default: the one the model was trained from)")
    add(
        "--dataset",
        metavar="NAME",
        choices=data.names(),
        help=f"the data set, one of {', '.join(data.names())} (default: the one the runs were trained on; models from "
        "files need it)",
    )
    add(
        "--space",
        action="append",
        default=[],
        metavar="[NAME=]SPACE",
        help=f"how pixels become the input of models from files: {', '.join(get_args(SpaceName))}, or the constants of "
        "Normalize as 0.5,0.5,0.5/0.25,0.25,0.25 (mean/std); with NAME= for that model alone (default: what is known "
        "of the weights, if anything is)",
    )
    default = DataConfig()
    add(
        "--size",
        type=int,
        metavar="N",
        help="imagenet: side in pixels of the input of models from files; needed unless the file says it, or the name "
        "of the library's own weights does",
    )
    add(
        "--central",
        type=float,
        metavar="SHARE",
        help=f"imagenet: the share of an image's sides that these are shown (default: what is "
        f"known of the weights, the runs', or {default.central})",
    )
    add(
        "--keep-aspect",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="imagenet: show a square of that share of the shorter side, or that share of both (default: what is known "
        "of the weights, the runs', or both)",
    )
    add(
        "--interpolation",
        choices=get_args(InterpolationName),
        help=f"imagenet: how images are resized (default: what is known of the weights, the runs', or "
        f"{default.interpolation})",
    )
    add(
        "--loader",
        choices=get_args(LoaderName),
        default="auto",
        help="imagenet: what decodes images; auto is dali where it is installed (default: auto, whatever the runs had)",
    )
    add(
        "--workers",
        type=partial(whole, least=0, most=devices.MOST_THREADS),
        metavar="N",
        help="imagenet: threads (dali) or processes (torchvision) that decode (default: the cores of this machine, "
        "shared by the processes that torchrun starts on it)",
    )
    add("--download", action="store_true", help="fetch the data set's files into that folder if they are missing")
