"""Names that the commands accept, repeated here so that --help need not import PyTorch; a test compares them."""

from __future__ import annotations

ATTACKS = (
    *("fgsm", "fgsm_pred", "fast_entropy", "fast_grad_l2", "fast_grad_linf", "step_ll", "step_rnd"),
    *("iter_basic", "iter_ll", "random_sign", "random_normal", "pgd", "mi_fgsm", "n_fgsm"),
    *("apgd_ce", "apgd_dlr", "apgd_t"),
    *("fab", "fab_t", "square", "autoattack"),
)
DATA_SETS = ("digits", "mnist", "fashion_mnist", "cifar10", "imagenet")
FOLDER = "folder"  # images in DIR/CLASS/IMAGE, for evaluation only
SPACES = ("raw", "unit", "symmetric", "imagenet")
INTERPOLATIONS = ("bilinear", "bicubic")
LOADERS = ("auto", "dali", "torchvision")
STUDIES = {
    "table1": "Table 1: adversarial training at scale",
    "table2": "Table 2: iterative examples",
    "table3": "Table 3, section 4.2: label leaking",
    "capacity": "Figures 1 and 4: influence of model capacity",
    "transfer": "Tables 4 and 6, Figures 2 and 5: transferability",
    "one_step": "Table 5, Figure 3: comparison of one-step methods",
    "activations": "Table 7: activation functions",
    "k_sweep": "Table 8: number of adversarial examples",
    "delay": "Section 4: delayed adversarial training",
    "fixed_eps": "Section 3: fixed and random eps in training",
    "iterative_training": "Section 4.1: training on iterative examples",
    "regularizers": "Section 4: other regularisers",
    "seeds": "not in the paper: effect of the seed",
}

CENTRAL = 0.875  # the default of DataConfig.central
INTERPOLATION = "bilinear"  # the default of DataConfig.interpolation
MANIFEST = "fastadv-manifest.json"  # that ``fastadv data check`` writes

SUITES = ("quick", "standard", "paper")
