"""scikit-learn's bundled digits, which need no download."""

from __future__ import annotations

import numpy as np
import torch

from fastadv.data.in_memory.image_set import ImageData, ImageSet
from fastadv.utils.optional_deps import require

_TEST_EXAMPLES = 500
_SPLIT_SEED = 0
_LEVELS = 16  # the file's grey levels are 0..16


def load_digits() -> ImageData:
    """Load 1,797 grey 8x8 images in ten classes, in a fixed stratified split: 1,297 for training, 500 for testing."""
    digits = require("sklearn.datasets", extra="train").load_digits()
    split = require("sklearn.model_selection", extra="train").train_test_split
    pixels = np.rint(digits.images * 255 / _LEVELS).astype(np.uint8)[:, None]  # [N, 1, 8, 8]
    parts = split(pixels, digits.target, test_size=_TEST_EXAMPLES, stratify=digits.target, random_state=_SPLIT_SEED)
    train_images, test_images, train_labels, test_labels = map(torch.from_numpy, parts)
    classes = tuple(str(name) for name in digits.target_names)
    return ImageData(
        train=ImageSet(train_images, train_labels.long(), classes),
        test=ImageSet(test_images, test_labels.long(), classes),
    )
