// A row of clean logits and the same image's adversarial ones: what their divergence and its derivatives share.
#pragma once

#include "../math/kl_divergence.h"
#include "row.h"

namespace fastadv::cpu {
namespace {  // its functions are compiled once per instruction set

template <class T>
struct PairOfRows {
  using F = compute_t<T>;
  const T *clean, *adv;  // [K]
  int64_t classes;
  Tops<F> tops;
  int64_t top;  // the clean row's largest class

  PairOfRows(const T* clean_row, const T* adv_row, int64_t count) : clean(clean_row), adv(adv_row), classes(count) {
    const RowExtremes<F> extremes = row_extremes(clean, classes);
    tops = {extremes.maximum, row_extremes(adv, classes).maximum};
    top = extremes.largest;
  }

  PairOfExp<F> at(int64_t j, F origin = 0) const { return pair_of_exp(load(clean[j]), load(adv[j]), tops, origin); }

  F shifted(int64_t j) const { return load(clean[j]) - tops.clean; }

  F log_ratio(int64_t j) const { return log_ratio_of(load(clean[j]), load(adv[j]), tops); }

  F shift(int64_t j) const { return kl_shift(load(clean[j]), load(adv[j]), load(adv[top]) - load(clean[top])); }
};

}  // namespace
}  // namespace fastadv::cpu
