// KL(p || q) of two rows of logits, p those of the clean and q those of the adversarial image, and its derivatives in
// closed form: q - p for the adversarial logits, and p_j (sum_k p_k d_k - d_j) for the clean ones, where d_j is the
// adversarial logit minus the clean one.
//
// q and p nearly agree at first, and where the network is confident both round to 1. So the difference of two
// exponentials is computed from that of the logits, and the divergence is a sum of terms that are never negative,
// p_j (exp(delta_j) - 1 - delta_j) with delta_j = log q_j - log p_j.
#pragma once

#include <cmath>

#include "macros.h"

namespace fastadv {

// The largest logit of each row.
template <class F>
struct Tops {
  F clean, adv;
};

// One class: its exponentials relative to the tops, and the log of their ratio adv / clean.
template <class F>
struct PairOfExp {
  F clean, adv, log_ratio;
};

template <class F>
FASTADV_HOST_DEVICE F log_ratio_of(F clean, F adv, Tops<F> tops) {
  return (adv - clean) - (tops.adv - tops.clean);
}

// Exponentials are taken relative to the tops plus `origin`, for which 0 will mostly do.
template <class F>
FASTADV_HOST_DEVICE PairOfExp<F> pair_of_exp(F clean, F adv, Tops<F> tops, F origin) {
  return {static_cast<F>(std::exp((clean - tops.clean) - origin)), static_cast<F>(std::exp((adv - tops.adv) - origin)),
          log_ratio_of(clean, adv, tops)};
}

// a - b from expm1(-|log_ratio|), where log_ratio = log(a / b) and not both are 0.
template <class F>
FASTADV_HOST_DEVICE F difference_from(F a, F b, F log_ratio, F expm1) {
  const F part = (log_ratio > F(0) ? a : b) * expm1;
  return log_ratio > F(0) ? -part : part;
}

// The same; 0 where both are, even if the logits are -inf.
template <class F>
FASTADV_HOST_DEVICE F difference(F a, F b, F log_ratio) {
  if (a == F(0) && b == F(0)) return F(0);
  return difference_from(a, b, log_ratio, static_cast<F>(std::expm1(-std::fabs(log_ratio))));
}

template <class F>
FASTADV_HOST_DEVICE F difference(PairOfExp<F> e) {
  return difference(e.adv, e.clean, e.log_ratio);
}

// log(adv / clean) of the sums of the exponentials; the sum of their differences is exact where the rows nearly agree.
template <class F>
FASTADV_HOST_DEVICE F log_ratio_of_sums(F clean, F adv, F differences) {
  const F relative = differences / clean;
  const bool near = relative > F(-0.5) && relative < F(1);
  return static_cast<F>(near ? std::log1p(relative) : std::log(adv / clean));
}

// d(KL) / d adversarial logit, q_j - p_j, from the difference of the class's exponentials, p_j and the sums.
template <class F>
FASTADV_HOST_DEVICE F kl_grad_adv(F difference, F p, F differences, F adv_inverse) {
  return (difference - p * differences) * adv_inverse;
}

// Where the closed form of a class's share in the divergence would cancel, and its series is used.
template <class F>
FASTADV_HOST_DEVICE bool is_near(F delta) {
  constexpr F near = sizeof(F) == 8 ? F(1.0 / 32) : F(0.25);
  return std::fabs(delta) < near;
}

template <class F>
FASTADV_HOST_DEVICE F kl_term_near(F p, F delta) {
  F series = F(1.0 / 362880);  // the sum of delta^n / (n + 2)!
  series = series * delta + F(1.0 / 40320);
  series = series * delta + F(1.0 / 5040);
  series = series * delta + F(1.0 / 720);
  series = series * delta + F(1.0 / 120);
  series = series * delta + F(1.0 / 24);
  series = series * delta + F(1.0 / 6);
  series = series * delta + F(0.5);
  return p * (delta * delta * series);
}

// The share of one class in the divergence, given q_j - p_j.
template <class F>
FASTADV_HOST_DEVICE F kl_term(F p, F grad_adv, F delta) {
  if (p == F(0)) return grad_adv;
  if (!is_near(delta)) return grad_adv - p * delta;
  return kl_term_near(p, delta);
}

// d_j relative to that of the clean row's largest class, so that a confident network's gradient is not rounded off.
template <class F>
FASTADV_HOST_DEVICE F kl_shift(F clean, F adv, F of_top) {
  return (adv - clean) - of_top;
}

// A class's part of sum_k p_k d_k, and its derivative; both 0 where p is, even if the logits are -inf.
template <class F>
FASTADV_HOST_DEVICE F kl_mean_term(F p, F shift) {
  return p == F(0) ? F(0) : p * shift;
}

template <class F>
FASTADV_HOST_DEVICE F kl_grad_clean(F p, F shift, F mean) {
  return p == F(0) && mean == mean ? F(0) : p * (mean - shift);
}

}  // namespace fastadv
