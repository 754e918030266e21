"""Inception v3 (Szegedy et al., 2015) on torchvision's blocks, with the paper's variations of size and activation."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import inception

from fastadv.models.activations import create_activation
from fastadv.utils.validation import check_dropout, check_switches, is_number

SMALLEST_IMAGE = 75  # pixels a side; from there on every grid has at least one cell
_STEPS = 16  # divides every number of filters, so that multiples of 1/16 as width give whole numbers

# torchvision's names, and the grids of 299 x 299 images.
_TO_GRID_35 = (
    *("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "maxpool1", "Conv2d_3b_1x1", "Conv2d_4a_3x3", "maxpool2"),
    *("Mixed_5b", "Mixed_5c", "Mixed_5d"),
)
_GRID_17 = ("Mixed_6a", "Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e")
_DEEPER = ("Mixed_6f", "Mixed_6g")
_GRID_8 = ("Mixed_7a", "Mixed_7b", "Mixed_7c")


class InceptionV3(inception.Inception3):
    """Inception v3 for images of at least 75 x 75 pixels, 299 x 299 in the paper, normalised by PixelSpace.symmetric().

    With default options its parameter names, shapes and outputs are those of torchvision's ``inception_v3``, and it can
    load that network's state dictionary. In training mode it returns torchvision's ``InceptionOutputs(logits,
    aux_logits)`` if it has the auxiliary head; otherwise, and always in evaluation mode, the logits.

    Torchvision's auxiliary head does not accept images below 299 x 299. Here its 5 x 5 convolution is cropped to the
    grid, as in TF-slim, and below 107 x 107 its 5 x 5 pooling as well.

    Args:
        num_classes: number of classes.
        in_channels: channels of the images.
        width: the paper's rho (section 4.3), which multiplies the number of filters of every convolution. A multiple of
            1/16, so that these numbers are whole and concatenated branches add up.
        activation: see :func:`fastadv.models.create_activation`.
        deeper: add two Inception blocks (Table 1). The paper does not say which; these repeat the last block of the
            17 x 17 grid, below the auxiliary head, which stays on top of that grid, and add 4.3 million parameters.
        aux: add the auxiliary head.
        dropout: probability of dropping a feature before the last layer.

    Raises:
        ValueError: if the activation is unknown or another option is out of range.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        in_channels: int,
        width: float = 1.0,
        activation: str = "relu",
        deeper: bool = False,
        aux: bool = True,
        dropout: float = 0.5,
    ) -> None:
        if not (is_number(width) and width > 0 and float(_STEPS * width).is_integer()):
            raise ValueError(f"width must be a positive multiple of 1/{_STEPS}, such as 0.25 or 1.5, got {width!r}")
        check_dropout(dropout)
        check_switches(deeper=deeper, aux=aux)

        def conv_block(inputs: int, filters: int, **options: Any) -> nn.Module:
            # These are the numbers for width 1; only the images have 3 channels.
            inputs = in_channels if inputs == 3 else round(width * inputs)
            return _ConvBlock(inputs, round(width * filters), activation=activation, **options)

        blocks = [partial(block, conv_block=conv_block) for block in _BLOCKS]
        super().__init__(
            num_classes=num_classes,
            aux_logits=aux,
            inception_blocks=[conv_block, *blocks],
            init_weights=False,
            dropout=dropout,
        )
        self._grid_17 = _GRID_17 + _DEEPER if deeper else _GRID_17
        if deeper:
            for name in _DEEPER:
                self.add_module(name, inception.InceptionC(768, channels_7x7=192, conv_block=conv_block))
        self.fc = nn.Linear(round(width * 2048), num_classes)
        self.apply(_initialise)

    def forward(self, images: Tensor) -> Any:  # [N, C, H, W] -> [N, K], or InceptionOutputs of two of them
        if self.training and self.aux_logits:
            return self.forward_with_aux(images)
        return self._logits(self._features(images))

    def forward_with_aux(self, images: Tensor) -> inception.InceptionOutputs:
        """Return logits and auxiliary logits, each [N, K], in training mode and in evaluation mode.

        Raises:
            ValueError: if the network has no auxiliary head or the images are too small.
        """
        if self.AuxLogits is None:
            raise ValueError("this inception_v3 has no auxiliary head: create it with aux=True")
        features = self._features(images)  # [N, 768 rho, H, W]: 17 x 17 of 299 x 299 pixels
        return inception.InceptionOutputs(self._logits(features), self.AuxLogits(features))

    def _features(self, images: Tensor) -> Tensor:  # [N, C, H, W] -> [N, 768 rho, H', W']
        if images.dim() != 4 or min(images.shape[2:]) < SMALLEST_IMAGE:
            raise ValueError(
                f"inception_v3 takes images [N, C, H, W] of at least {SMALLEST_IMAGE} x {SMALLEST_IMAGE} pixels, "
                f"got {list(images.shape)}; small_cnn takes smaller ones"
            )
        return self._through(_TO_GRID_35 + self._grid_17, images)

    def _logits(self, features: Tensor) -> Tensor:  # [N, 768 rho, H, W] -> [N, K]
        pooled = self.avgpool(self._through(_GRID_8, features)).flatten(1)  # [N, 2048 rho]
        logits: Tensor = self.fc(self.dropout(pooled))
        return logits

    def _through(self, layers: tuple[str, ...], x: Tensor) -> Tensor:
        for name in layers:
            x = getattr(self, name)(x)
        return x


class _ConvBlock(inception.BasicConv2d):
    """torchvision's convolution and BatchNorm with any activation."""

    def __init__(self, in_channels: int, out_channels: int, *, activation: str, **options: Any) -> None:
        super().__init__(in_channels, out_channels, **options)
        self.activation = create_activation(activation)

    def forward(self, x: Tensor) -> Tensor:  # [N, C, H, W] -> [N, F, H', W']
        activated: Tensor = self.activation(self.bn(self.conv(x)))
        return activated


class _AuxHead(inception.InceptionAux):
    """torchvision's auxiliary head, for grids of any size and layers of any width."""

    def __init__(self, in_channels: int, num_classes: int, conv_block: Any) -> None:
        super().__init__(in_channels, num_classes, conv_block)
        self.fc = nn.Linear(self.conv1.conv.out_channels, num_classes)
        self.fc.stddev = 0.001  # type: ignore[assignment]  # as torchvision's

    def forward(self, x: Tensor) -> Tensor:  # [N, 768 rho, H, W] -> [N, K]
        x = functional.avg_pool2d(x, kernel_size=[min(5, side) for side in x.shape[2:]], stride=3)
        x = self.conv0(x)  # [N, 128 rho, 5, 5] on the 17 x 17 grid
        # Padding a grid that is smaller than conv1's kernel with zeros equals cropping the kernel to the grid.
        rows, columns = (max(0, 5 - side) for side in x.shape[2:])
        x = functional.pad(x, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))
        x = functional.adaptive_avg_pool2d(self.conv1(x), 1).flatten(1)  # [N, 768 rho]
        logits: Tensor = self.fc(x)
        return logits


# Replacements for torchvision's blocks, in the order of its ``inception_blocks``.
_BLOCKS = (
    *(inception.InceptionA, inception.InceptionB, inception.InceptionC, inception.InceptionD, inception.InceptionE),
    _AuxHead,
)


def _initialise(module: nn.Module) -> None:
    """Initialise as torchvision does: with a standard deviation of 0.1, or the layer's ``stddev``."""
    if isinstance(module, (nn.Conv2d, nn.Linear)):
        nn.init.trunc_normal_(module.weight, std=getattr(module, "stddev", 0.1), a=-2, b=2)
