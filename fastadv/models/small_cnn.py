"""SmallCNN: a convnet with batch normalisation for small images."""

from __future__ import annotations

from torch import Tensor, nn

from fastadv.models.activations import create_activation
from fastadv.utils.validation import check_dropout, check_switches, is_number

# Filters and stride of each block, and of the two more in a deeper network.
_DEEPER = ((64, 1), (64, 1))
_STAGES = ((16, 1), (32, 2), (32, 1), (64, 2), (64, 1))


class SmallCNN(nn.Module):
    """Five blocks of convolution, batch normalisation and activation, global average pooling, and one linear layer.

    Takes images of any size: two of the convolutions halve it, so that 8x8 ends as 2x2, 28x28 as 7x7 and 32x32 as 8x8.

    Args:
        num_classes: number of classes.
        in_channels: channels of the images.
        width: a multiplier (the paper's rho, section 4.3): at 1, convolutions have 16 to 64 filters; 2 doubles them.
        activation: see :func:`fastadv.models.create_activation`.
        dropout: probability of dropping a feature before the linear layer.
        deeper: add two blocks before the pooling, in analogy to Table 1's two additional Inception blocks.

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
        dropout: float = 0.0,
        deeper: bool = False,
    ) -> None:
        super().__init__()
        if not is_number(width) or width <= 0:
            raise ValueError(
                f"width, which multiplies the numbers of filters, must be a positive number, got {width!r}"
            )
        check_dropout(dropout)
        check_switches(deeper=deeper)
        blocks, channels = [], in_channels
        for filters, stride in (*_STAGES, *(_DEEPER if deeper else ())):
            filters = max(1, round(width * filters))
            blocks.append(_block(channels, filters, stride, activation))
            channels = filters
        self.features = nn.Sequential(*blocks)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(channels, num_classes)

    def forward(self, images: Tensor) -> Tensor:  # [N, C, H, W] -> [N, K]
        features = self.pool(self.features(images)).flatten(1)  # [N, F]
        logits: Tensor = self.classifier(self.dropout(features))
        return logits


def _block(in_channels: int, filters: int, stride: int, activation: str) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, filters, kernel_size=3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(filters),
        create_activation(activation),
    )
