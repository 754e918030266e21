// What the costs of one row of logits share: extremes, softmax sums, the cross-entropy's derivative.
#pragma once

#include <cmath>

#include "../math/logit_grad.h"
#include "element.h"

namespace fastadv::cpu {

template <class F>
struct RowExtremes {
  F maximum;
  int64_t largest, smallest;  // the first class of each; NaN is skipped; for a row of NaN the class is 0
};

template <class T, class F = compute_t<T>>
FASTADV_HOST_DEVICE RowExtremes<F> row_extremes(const T* z, int64_t classes) {
  RowExtremes<F> result{load(z[0]), 0, 0};
  F minimum = result.maximum;
  for (int64_t j = 1; j < classes; ++j) {
    const F value = load(z[j]);
    if (value > result.maximum || (result.maximum != result.maximum && value == value)) {
      result.maximum = value;
      result.largest = j;
    }
    if (value < minimum || (minimum != minimum && value == value)) {
      minimum = value;
      result.smallest = j;
    }
  }
  return result;
}

template <class F>
struct RowSums {
  F sum, others, mean_shifted;  // of e_j, of e_j without the target, of z_j - max z
};

template <class T, class F = compute_t<T>>
FASTADV_HOST_DEVICE RowSums<F> row_sums(const T* z, int64_t classes, int64_t target, F maximum) {
  double others = 0, shifted_sum = 0;  // over 20,000 classes float sums would lose three digits
  for (int64_t j = 0; j < classes; ++j) {
    const F shifted = load(z[j]) - maximum;
    shifted_sum += shifted;
    if (j != target) others += std::exp(shifted);
  }
  const double sum = others + std::exp(load(z[target]) - maximum);
  return {static_cast<F>(sum), static_cast<F>(others), static_cast<F>(shifted_sum / static_cast<double>(classes))};
}

// Exponentials are taken relative to `origin`, for which the row's maximum will mostly do.
template <class T, class D, class F = compute_t<T>>
FASTADV_HOST_DEVICE void cross_entropy_row(const T* z, D* dz, int64_t classes, int64_t target, F origin,
                                           RowSums<F> sums, F weight, Smoothing<F> smoothing) {
  const F inverse_sum = F(1) / sums.sum;
  for (int64_t j = 0; j < classes; ++j)
    store(dz[j], weight * cross_entropy_grad_other(std::exp(load(z[j]) - origin), inverse_sum, smoothing));
  store(dz[target], weight * cross_entropy_grad_target(sums.others, inverse_sum, smoothing));
}

}  // namespace fastadv::cpu
