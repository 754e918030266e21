// The margin of a row of logits, which a group of threads reads once: a warp, or a block where there are many classes.
#pragma once

#include "../math/margin.h"
#include "launch.cuh"
#include "register_row.cuh"

namespace fastadv {

template <class F>
__device__ __forceinline__ Ranking<F> __shfl_xor_sync(unsigned mask, Ranking<F> ranking, int distance) {
#pragma unroll
  for (int k = 0; k < kPlaces; ++k)
    ranking.place[k] = {::__shfl_xor_sync(mask, ranking.place[k].value, distance),
                        ::__shfl_xor_sync(mask, ranking.place[k].index, distance)};
  return ranking;
}

}  // namespace fastadv

namespace fastadv::cuda {

// Of rankings without a class in common.
struct MergeRankings {
  template <class F>
  __device__ __forceinline__ Ranking<F> operator()(Ranking<F> a, const Ranking<F>& b) const {
#pragma unroll
    for (int k = 0; k < kPlaces; ++k) insert(a, b.place[k]);
    return a;
  }
};

// Loads of several classes are under way at once.
template <class Row>
__device__ __forceinline__ Ranking<typename Row::F> ranking_of(const Row& row) {
  using F = typename Row::F;
  Ranking<F> ranking = empty_ranking<F>();
#pragma unroll 4
  for (int64_t j = row.lane; j < row.classes; j += Row::kGroup)
    insert(ranking, Ranked<F>{load(row.z[j]), static_cast<int32_t>(j)});
  return group_reduce<Row::kGroup>(ranking, MergeRankings{});
}

// A class that is out of range has a logit of NaN.
template <class Row>
__device__ __forceinline__ Ranked<typename Row::F> class_of(const Row& row, int64_t index) {
  using F = typename Row::F;
  const int32_t found = class_or_none(index, row.classes);
  return {shifted_or_nan(row.z, found, F(0)), found};
}

// target: of the targeted loss, otherwise any class.
template <class Row, class F = typename Row::F>
__device__ __forceinline__ Margin margin_of_row(const Row& row, MarginLoss loss, const Ranking<F>& ranking,
                                                int64_t label, int64_t target) {
  return margin_of(loss, ranking, class_of(row, label), class_of(row, target));
}

template <class Row>
constexpr int kMarginBlocks = sizeof(typename Row::F) == 8 ? 2 : 4;

// launch(the type that reads a row of these logits, null).
template <class T, class Launch>
void with_memory_row(int64_t classes, Launch launch) {
  if (classes > kMostHeld) launch(static_cast<MemoryRow<T, T, kThreads>*>(nullptr));
  else launch(static_cast<MemoryRow<T, T, kWarp>*>(nullptr));
}

}  // namespace fastadv::cuda
