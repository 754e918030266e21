// A row of clean logits and the same image's adversarial ones: what their divergence and its derivatives share.
#pragma once

#include "../math/kl_divergence.h"
#include "lanes.h"
#include "row.h"

namespace fastadv::cpu {
namespace {  // its functions are compiled once per instruction set

// The largest value; NaN is skipped, and a row of NaN has -inf, from which its values differ by NaN.
template <class T, class F = compute_t<T>>
FASTADV_HOST_DEVICE F maximum(const T* z, int64_t classes) {
  F largest[kLanes];
  for (F& value : largest) value = -INFINITY;
  in_blocks(classes, [&](int64_t first, int count) __attribute__((always_inline)) {
    for (int l = 0; l < count; ++l) {
      const F value = load(z[first + l]);
      largest[l] = value > largest[l] ? value : largest[l];
    }
  });
  F result = largest[0];
  for (F value : largest) result = value > result ? value : result;
  return result;
}

template <class T>
struct PairOfRows {
  using F = compute_t<T>;
  const T *clean, *adv;  // [K]
  int64_t classes;
  Tops<F> tops;
  int64_t top;  // the clean row's largest class

  PairOfRows(const T* clean_row, const T* adv_row, int64_t count) : clean(clean_row), adv(adv_row), classes(count) {
    tops = {maximum(clean, classes), maximum(adv, classes)};
    top = 0;
    while (top < classes && load(clean[top]) != tops.clean) ++top;
    if (top == classes) top = 0;  // a row of NaN
  }

  PairOfExp<F> at(int64_t j, F origin = 0) const { return pair_of_exp(load(clean[j]), load(adv[j]), tops, origin); }

  F shifted(int64_t j) const { return load(clean[j]) - tops.clean; }

  F log_ratio(int64_t j) const { return log_ratio_of(load(clean[j]), load(adv[j]), tops); }

  F shift(int64_t j) const { return kl_shift(load(clean[j]), load(adv[j]), load(adv[top]) - load(clean[top])); }
};

}  // namespace
}  // namespace fastadv::cpu
