"""Inception v3 (Szegedy et al., 2015) on torchvision's blocks, with what the paper varies: size and activation."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import inception

from fastadv.models.activations import create_activation
from fastadv.utils.validation import check_dropout, check_switches, is_number

SMALLEST_IMAGE = 75  # pixels a side; from there on every grid has at least one cell
_STEPS = 16  # every number of filters is a multiple of it, so that one in width is a whole number of filters

# Names are torchvision's, grids those of images of 299 x 299.
_TO_GRID_35 = (
    *("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "maxpool1", "Conv2d_3b_1x1", "Conv2d_4a_3x3", "maxpool2"),
    *("Mixed_5b", "Mixed_5c", "Mixed_5d"),
)
_GRID_17 = ("Mixed_6a", "Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e")
_DEEPER = ("Mixed_6f", "Mixed_6g")
_GRID_8 = ("Mixed_7a", "Mixed_7b", "Mixed_7c")


class InceptionV3(inception.Inception3):
    """Inception v3 for images of at least 75 x 75 pixels, 299 x 299 in the paper, normalised by PixelSpace.symmetric().

    With the options' defaults it has the parameters' names, shapes and outputs of torchvision's ``inception_v3``, whose
    state dictionary it loads. In training mode it returns torchvision's ``InceptionOutputs(logits, aux_logits)`` if it
    has the auxiliary head, and otherwise, as always in evaluation mode, the logits.

    On images below 299 x 299, which torchvision's auxiliary head does not take, its 5 x 5 convolution is cut to what
    there is of the grid, as in TF-slim, and below 107 x 107 so is its 5 x 5 pooling.

    Args:
        num_classes: number of classes.
        in_channels: channels of the images.
        width: the paper's rho (section 4.3), which multiplies the number of filters of every convolution; a multiple of
            1/16, for the numbers of filters are whole then, and those of concatenated branches add up.
        activation: see :func:`fastadv.models.create_activation`.
        deeper: two additional Inception blocks (Table 1). The paper does not say which: these two repeat the last one
            of the 17 x 17 grid, below the auxiliary head, which stays on top of that grid, and add 4.3 million
            parameters.
        aux: whether there is an auxiliary head.
        dropout: probability of dropping a feature before the last layer.

    Raises:
        ValueError: an unknown activation, or another option out of range.
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
            # The numbers are those of width 1; 3 is the images' alone.
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
        """Logits and auxiliary logits, each [N, K], in evaluation mode as well as in training mode.

        Raises:
            ValueError: a network without the auxiliary head, or images that are too small.
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
    """torchvision's convolution and BatchNorm, and any activation."""

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
        # Zeros around a grid that is smaller than conv1's kernel do what a kernel cut to the grid does.
        rows, columns = (max(0, 5 - side) for side in x.shape[2:])
        x = functional.pad(x, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))
        x = functional.adaptive_avg_pool2d(self.conv1(x), 1).flatten(1)  # [N, 768 rho]
        logits: Tensor = self.fc(x)
        return logits


# What torchvision makes the network of, in the order in which it takes replacements.
_BLOCKS = (
    *(inception.InceptionA, inception.InceptionB, inception.InceptionC, inception.InceptionD, inception.InceptionE),
    _AuxHead,
)


def _initialise(module: nn.Module) -> None:
    """torchvision's initial weights: a standard deviation of 0.1, or the layer's own ``stddev``."""
    if isinstance(module, (nn.Conv2d, nn.Linear)):
        nn.init.trunc_normal_(module.weight, std=getattr(module, "stddev", 0.1), a=-2, b=2)
