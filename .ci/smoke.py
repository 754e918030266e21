"""That an installed fastadv works: one operator, one attack, and what it was built with. Run outside of the sources."""

import torch

import fastadv
from fastadv import attacks, ops
from fastadv.utils.environment import report

adv, grad = torch.full((1, 3, 2, 2), 100.0), torch.ones(1, 3, 2, 2)
ops.sign_step_(adv, adv, grad, alpha=2, eps=2)
assert adv.eq(102).all(), adv

model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 5))
images, labels = torch.rand(4, 3, 2, 2), torch.arange(4)
moved = attacks.create("fgsm", model, eps=8)(images, labels)
assert 0 < (moved - images).abs().max() <= 8 / 255 + 1e-6

print(f"fastadv {fastadv.__version__} works\n{report()}")
