// The margin of a row of logits.
#pragma once

#include "../math/margin.h"
#include "element.h"

namespace fastadv::cpu {

template <class T, class F = compute_t<T>>
FASTADV_HOST_DEVICE Ranking<F> ranking_of(const T* z, int64_t classes) {
  Ranking<F> ranking = empty_ranking<F>();
  for (int64_t j = 0; j < classes; ++j) insert(ranking, Ranked<F>{load(z[j]), static_cast<int32_t>(j)});
  return ranking;
}

template <class T, class F = compute_t<T>>
FASTADV_HOST_DEVICE Ranked<F> class_of(const T* z, int64_t index) {
  return {load(z[index]), static_cast<int32_t>(index)};
}

// target: of the targeted loss, otherwise any class.
template <class T, class F = compute_t<T>>
FASTADV_HOST_DEVICE Margin margin_of_row(const T* z, MarginLoss loss, const Ranking<F>& ranking, int64_t label,
                                         int64_t target) {
  return margin_of(loss, ranking, class_of(z, label), class_of(z, target));
}

}  // namespace fastadv::cpu
