// Derivatives of per-example costs with respect to the logits z of one row of K classes, in closed form.
//
// With e_j = exp(z_j - max z) and S = sum e_j, p_j = e_j / S. The target's p - 1 is taken as -(S - e_target) / S with
// the difference summed directly: for a confident network it would otherwise cancel to zero and so hide the gradient.
// S is inverted once per row: on a GPU, a division per class would be most of the work.
//
// A scaled derivative is a row times a power of two, 2^-exponent, which brings its largest element into [0.5, 1): half
// precision would round the small derivatives of a confident network to zero, and float those of a very confident one.
// Where that element is subnormal, no float is large enough, and it stays below 0.5.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

#include "macros.h"

namespace fastadv {

// Label smoothing s: the wanted distribution is 1 - s on the target plus s / K everywhere.
template <class F>
struct Smoothing {
  F target, share;  // s, s / K
};

template <class F>
FASTADV_HOST_DEVICE Smoothing<F> smoothing_of(F label_smoothing, int64_t classes) {
  return {label_smoothing, label_smoothing / static_cast<F>(classes)};
}

// What makes the derivatives below a factor times as large, together with that times the inverse sum.
template <class F>
FASTADV_HOST_DEVICE Smoothing<F> operator*(F factor, Smoothing<F> smoothing) {
  return {factor * smoothing.target, factor * smoothing.share};
}

// d(cross-entropy) / d z_j for every class but the target.
template <class F>
FASTADV_HOST_DEVICE F cross_entropy_grad_other(F e, F inverse_sum, Smoothing<F> smoothing) {
  return e * inverse_sum - smoothing.share;
}

// d(cross-entropy) / d z_target; others = S - e_target.
template <class F>
FASTADV_HOST_DEVICE F cross_entropy_grad_target(F others, F inverse_sum, Smoothing<F> smoothing) {
  return smoothing.target - smoothing.share - others * inverse_sum;
}

// Cross-entropy itself; shifted values are z - max z, mean_shifted their mean over the classes, which may be -inf.
template <class F>
FASTADV_HOST_DEVICE F cross_entropy(F log_sum, F shifted_target, F mean_shifted, Smoothing<F> smoothing) {
  const F of_target = log_sum - (F(1) - smoothing.target) * shifted_target;
  return smoothing.target == F(0) ? of_target : of_target - smoothing.target * mean_shifted;
}

// e_j (z_j - max z), whose sum gives the mean below; 0 where the exponential vanishes, even at -inf.
template <class F>
FASTADV_HOST_DEVICE F entropy_term(F e, F shifted) {
  return e > F(0) ? e * shifted : F(0);
}

// d(entropy) / d z_j = -p_j (log p_j + entropy) = -p_j (z_j - sum_k p_k z_k); the mean is that sum, of shifted values.
template <class F>
FASTADV_HOST_DEVICE F entropy_grad(F e, F shifted, F inverse_sum, F mean) {
  return e == F(0) && inverse_sum == inverse_sum ? F(0) : -(e * inverse_sum) * (shifted - mean);
}

// The same for one of the other classes where the largest logit, or several equal ones, have all the probability: the
// mean is then negligible. Logits that differ by more than 1e28 stay finite.
template <class F>
FASTADV_HOST_DEVICE F entropy_grad_beside_ties(F e, F shifted, F ties) {
  constexpr F lowest = F(-1e28);
  return -(e / ties) * (shifted > lowest ? shifted : lowest);
}

// --- scaled derivatives ----------------------------------------------------------------------------------------------

constexpr int32_t kExponentOfZero = -(1 << 30);  // below any other
constexpr int32_t kLowestExponent = -(1 << 20);  // of what is too small to count, beside derivatives of other logits

// If the other classes have less than this, the smaller among them lose bits to underflow.
template <class F>
constexpr F kLeastOfOthers = std::numeric_limits<F>::min() / std::numeric_limits<F>::epsilon();
template <class F>
constexpr int kLeastExponent = std::numeric_limits<F>::min_exponent;  // 2^-that is finite

// Whether the target has all of the sum, as far as F can tell, and the others too little.
template <class F>
FASTADV_HOST_DEVICE bool is_certain(F sum, F others) {
  return sum == F(1) && others < kLeastOfOthers<F>;
}

// What exponentials are taken relative to, in place of the largest logit:
// exp(z - maximum) = exp(z - value) * 2^exponent.
template <class F>
struct Origin {
  F value;
  int32_t exponent;
};

// An origin near the largest logit of the other classes; where they have none that is finite, the maximum itself.
template <class F>
FASTADV_HOST_DEVICE Origin<F> origin_of_others(F maximum, F largest_other) {
  constexpr double exact = 0.693147180559945309417;  // log 2
  constexpr F log_2 = F(exact), log_2_rest = F(exact - static_cast<double>(log_2));
  if (!(largest_other > -INFINITY)) return {maximum, 0};
  const F margin = maximum - largest_other, powers = std::rint(margin / log_2);
  if (!(powers < F(-kLowestExponent))) return {largest_other, kLowestExponent};
  const F too_far = std::fma(powers, log_2, -margin) + powers * log_2_rest;
  return {largest_other - too_far, -static_cast<int32_t>(powers)};
}

template <class F>
struct Scale {
  F factor;  // 1 / 2^exponent, but for the origin's part
  int32_t exponent;
};

// That of a row by its largest absolute value; a row that is zero or not finite stays as it is.
template <class F>
FASTADV_HOST_DEVICE Scale<F> scale_of(F largest, int32_t exponent_of_origin) {
  if (largest == F(0)) return {F(1), kExponentOfZero};
  if (!(largest < INFINITY)) return {F(1), 0};
  const int exponent = std::ilogb(largest) + 1, own = exponent > kLeastExponent<F> ? exponent : kLeastExponent<F>;
  return {std::ldexp(F(1), -own), exponent_of_origin + own};
}

}  // namespace fastadv
