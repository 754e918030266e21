// Derivatives of per-example costs with respect to the logits z of one row of K classes, in closed form.
//
// With e_j = exp(z_j - max z) and S = sum e_j, p_j = e_j / S. The target's p - 1 is taken as -(S - e_target) / S with
// the difference summed directly: for a confident network it would otherwise cancel to zero and so hide the gradient.
#pragma once

#include "macros.h"

namespace fastadv {

// Label smoothing s: the wanted distribution is 1 - s on the target plus s / K everywhere.
template <class F>
struct Smoothing {
  F target, share;  // s, s / K
};

// d(cross-entropy) / d z_j for a class other than the target.
template <class F>
FASTADV_HOST_DEVICE F cross_entropy_grad_other(F e, F sum, Smoothing<F> smoothing) {
  return e / sum - smoothing.share;
}

// d(cross-entropy) / d z_target; others = S - e_target.
template <class F>
FASTADV_HOST_DEVICE F cross_entropy_grad_target(F others, F sum, Smoothing<F> smoothing) {
  return smoothing.target - smoothing.share - others / sum;
}

// Cross-entropy itself; shifted values are z - max z, mean_shifted their mean over the classes.
template <class F>
FASTADV_HOST_DEVICE F cross_entropy(F log_sum, F shifted_target, F mean_shifted, Smoothing<F> smoothing) {
  return log_sum - (F(1) - smoothing.target) * shifted_target - smoothing.target * mean_shifted;
}

// d(entropy) / d z_j = -p_j (log p_j + entropy).
template <class F>
FASTADV_HOST_DEVICE F entropy_grad(F e, F shifted, F sum, F log_sum, F entropy) {
  return e > F(0) ? -(e / sum) * (shifted - log_sum + entropy) : F(0);
}

}  // namespace fastadv
