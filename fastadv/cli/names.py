"""Names that the commands accept, repeated here so that --help need not import PyTorch; a test compares them."""

from __future__ import annotations

ATTACKS = (
    *("fgsm", "fgsm_pred", "fast_entropy", "fast_grad_l2", "fast_grad_linf", "step_ll", "step_rnd"),
    *("iter_basic", "iter_ll", "random_sign", "random_normal", "pgd", "mi_fgsm", "n_fgsm"),
)
DATA_SETS = ("digits", "mnist", "fashion_mnist", "cifar10", "imagenet")
SPACES = ("raw", "unit", "symmetric", "imagenet")
INTERPOLATIONS = ("bilinear", "bicubic")
LOADERS = ("auto", "dali", "torchvision")

CENTRAL = 0.875  # the default of DataConfig.central
INTERPOLATION = "bilinear"  # the default of DataConfig.interpolation
MANIFEST = "fastadv-manifest.json"  # that ``fastadv data check`` writes
MOST_THREADS = 1024
