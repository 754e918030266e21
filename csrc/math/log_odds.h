// The cross-entropy of one row of logits by its log odds, log((1 - p_y) / p_y): the logsumexp of the other classes
// minus z_y. The cross-entropy is log(1 + exp(log odds)), which for a confident network rounds to zero; they do not.
#pragma once

#include <cmath>

#include "macros.h"

namespace fastadv {

// What exponentials are taken relative to: the largest logit of the other classes, if there is one.
template <class F>
FASTADV_HOST_DEVICE F origin_or_zero(F largest_other) {
  return largest_other > -INFINITY ? largest_other : F(0);
}

// others: the sum of exp(z - origin) over the other classes. NaN if a logit is NaN or infinite.
template <class F>
FASTADV_HOST_DEVICE F log_odds(F origin, F others, F of_label) {
  if (!(of_label < INFINITY)) return static_cast<F>(NAN);
  return (origin - of_label) + static_cast<F>(std::log(others));
}

template <class F>
FASTADV_HOST_DEVICE F cross_entropy_of(F log_odds) {
  const F rest = static_cast<F>(std::log1p(std::exp(-std::fabs(log_odds))));
  return log_odds > F(0) ? log_odds + rest : rest;
}

}  // namespace fastadv
