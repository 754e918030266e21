"""The DALI pipeline that decodes images and crops them, and on a GPU resizes them too."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fastadv.data.loaders.dali_forks import keep_when_forked
from fastadv.data.transforms.decode import most_pixels
from fastadv.data.transforms.preprocessing import TRIES, Preprocessing, central_window, random_window
from fastadv.utils.optional_deps import require

# Share of a batch for the GPU's JPEG decoder. With DALI's default of 0.65, users report, the decoder waits for the CPU,
# which decodes the rest; this has not been measured here.
_HARDWARE_SHARE = 0.9
_TINY = 2.0**-100  # well above the smallest normal float32, 2^-126


def create_pipeline(
    feed: Iterator[tuple[list[Any], ...]],
    *,
    preprocessing: Preprocessing,
    train: bool,
    batch_size: int,
    workers: int,
    prefetch: int,
    resize: bool,
    device: torch.device,
) -> Any:
    """Create a DALI pipeline whose batches are m crops of images [height, width, 3] uint8, not mirrored, on ``device``.

    Args:
        feed: yields for each batch the list of m encoded images, uint8; in training also the draws for each: windows
            [4, TRIES] float64, and with ``resize`` and ``preprocessing.colour`` colours [3, 4].
        preprocessing: how images are cropped, resized and coloured.
        train: augment at random; otherwise preprocess for evaluation.
        batch_size: the largest m.
        workers: CPU threads.
        prefetch: batches prepared ahead.
        resize: resize the crops to pixels [m, size, size, 3] uint8, with the drawn colours.
        device: a CUDA device or the CPU.
    """
    fn, types = require("nvidia.dali.fn", extra="dali"), require("nvidia.dali.types", extra="dali")
    on_gpu = device.type == "cuda"
    pipeline = require("nvidia.dali.pipeline", extra="dali").Pipeline(
        batch_size, workers, _index(device) if on_gpu else None, prefetch_queue_depth=prefetch
    )
    with pipeline:
        outputs = 1 + train * (1 + (resize and preprocessing.colour))
        encoded, *drawn = fn.external_source(source=feed, num_outputs=outputs, batch=True)
        anchor, shape = window_nodes(encoded, drawn, preprocessing, train)
        mixed = {"hw_decoder_load": _HARDWARE_SHARE, "jpeg_fancy_upsampling": True} if on_gpu else {}
        images = fn.decoders.image_slice(
            encoded, anchor, shape, axis_names="HW", device="mixed" if on_gpu else "cpu", **mixed
        )
        if resize:
            side = [preprocessing.size] * 2
            kind = types.INTERP_CUBIC if preprocessing.interpolation == "bicubic" else types.INTERP_LINEAR
            images = fn.resize(images, size=side, interp_type=kind, antialias=True)
            if train and preprocessing.colour:
                images = fn.coord_transform(images, MT=drawn[1], dtype=types.UINT8)
        pipeline.set_outputs(images)
    pipeline.build()
    return pipeline


def knows_format(encoded: NDArray[np.uint8]) -> bool:
    """Whether DALI can read the size of an image, without which it cannot crop it at all."""
    fn = require("nvidia.dali.fn", extra="dali")
    pipeline = keep_when_forked(require("nvidia.dali.pipeline", extra="dali").Pipeline(1, 1, None))
    with pipeline:
        (node,) = fn.external_source(source=iter([([encoded],)]), num_outputs=1, batch=True)
        pipeline.set_outputs(fn.peek_image_shape(node))
    pipeline.build()
    try:
        pipeline.run()
    except RuntimeError:
        return False
    return True


def window_nodes(encoded: Any, drawn: Sequence[Any], preprocessing: Preprocessing, train: bool) -> tuple[Any, Any]:
    """Position (top, left) and size (height, width) of each image's crop, as graph nodes."""
    fn, types = require("nvidia.dali.fn", extra="dali"), require("nvidia.dali.types", extra="dali")
    arithmetic = DaliArithmetic()
    shape = fn.cast(fn.peek_image_shape(encoded), dtype=types.FLOAT64)  # [3]: height, width, channels
    height, width = shape[0], shape[1]
    if train:
        rows = [drawn[0][row] for row in range(4)]  # [TRIES] each
        window = random_window(height, width, rows, preprocessing.widest_aspect, arithmetic)
    else:
        central, keep_aspect = preprocessing.central, preprocessing.keep_aspect
        window = central_window(height, width, central, arithmetic, keep_aspect=keep_aspect)
    # DALI has no limit on pixels. But it refuses a crop outside of the image before it allocates memory for the image.
    too_large = fn.cast(height * width > arithmetic.number(most_pixels()), dtype=types.FLOAT64)  # 0 or 1
    window[0] += too_large * height
    top, left, tall, wide = (fn.cast(value, dtype=types.INT32) for value in window)
    return fn.stack(top, left), fn.stack(tall, wide)


def _index(device: torch.device) -> int:
    return torch.cuda.current_device() if device.index is None else device.index


class DaliArithmetic:
    """Arithmetic on the nodes of a DALI graph."""

    def __init__(self) -> None:
        self._math = require("nvidia.dali.math", extra="dali")
        self._fn = require("nvidia.dali.fn", extra="dali")
        self._types = require("nvidia.dali.types", extra="dali")

    def number(self, value: float) -> Any:
        """DALI stores constants in float32, whatever their type: a value with more digits becomes a sum of several."""
        if 0 < abs(value) < _TINY:  # float32 may have too few digits for it: a product instead
            return self._fn.cast(_TINY, dtype=self._types.FLOAT64) * self.number(value / _TINY)
        kept = float(np.float32(value))
        if kept == value:
            return self._types.Constant(np.float64(value), dtype=self._types.FLOAT64)
        return self._fn.cast(kept, dtype=self._types.FLOAT64) + self.number(value - kept)  # nothing is rounded

    def sqrt(self, value: Any) -> Any:
        return self._math.sqrt(value)

    def floor(self, value: Any) -> Any:
        return self._math.floor(value)

    def smaller(self, left: Any, right: Any) -> Any:
        return self._math.min(left, right)

    def larger(self, left: Any, right: Any) -> Any:
        return self._math.max(left, right)

    def first(self, fits: Any, values: Sequence[Any], otherwise: Sequence[Any]) -> list[Any]:
        """``ranks`` counts down over the candidates that fit, so its maximum is at the first one; the last candidate is
        ``otherwise``."""
        fn, types = self._fn, self._types
        ranks = fn.cast(fits, dtype=types.FLOAT) * types.Constant(np.arange(TRIES, 0, -1, dtype=np.float32))  # [TRIES]
        first = fn.cast(float(TRIES) - fn.reductions.max(ranks), dtype=types.INT32)
        node = fn.cast(types.Constant(np.ones(1, np.float32)), dtype=types.FLOAT64)  # [1]: turns numbers into nodes
        return [fn.cat(value, last * node)[first] for value, last in zip(values, otherwise, strict=True)]
