// A row of clean logits and the same image's adversarial ones, which a group of threads goes through together: a warp,
// or a block where there are many classes. Each pass reads the rows again, which the first has brought into the cache.
#pragma once

#include "../math/kl_divergence.h"
#include "launch.cuh"
#include "register_row.cuh"

namespace fastadv::cuda {

// Sums of several terms, which are reduced together.
template <class F, int kTerms>
struct SumsOf {
  F term[kTerms];

  __device__ __forceinline__ SumsOf operator+(SumsOf other) const {
    SumsOf result;
#pragma unroll
    for (int i = 0; i < kTerms; ++i) result.term[i] = term[i] + other.term[i];
    return result;
  }
};

template <class F, int kTerms>
__device__ __forceinline__ SumsOf<F, kTerms> __shfl_xor_sync(unsigned mask, SumsOf<F, kTerms> sums, int distance) {
#pragma unroll
  for (int i = 0; i < kTerms; ++i) sums.term[i] = ::__shfl_xor_sync(mask, sums.term[i], distance);
  return sums;
}

template <class T, int kThreadsOfRow>
struct PairOfRows {
  using F = compute_t<T>;
  using Stored = T;
  static constexpr int kGroup = kThreadsOfRow;

  MemoryRow<T, T, kGroup> clean, adv;
  Tops<F> tops;
  int32_t top;  // the clean row's largest class

  __device__ __forceinline__ PairOfRows(const T* clean_row, const T* adv_row, int64_t classes, int lane)
      : clean{clean_row, nullptr, classes, lane}, adv{adv_row, nullptr, classes, lane} {
    tops = {clean.maximum(), adv.maximum()};
    top = static_cast<int32_t>(clean.predicted(tops.clean));
  }

  __device__ __forceinline__ bool leads() const { return clean.lane == 0; }

  __device__ __forceinline__ PairOfExp<F> at(int64_t j, F origin = 0) const {
    return pair_of_exp(load(clean.z[j]), load(adv.z[j]), tops, origin);
  }

  __device__ __forceinline__ F shift(int64_t j) const {
    return kl_shift(load(clean.z[j]), load(adv.z[j]), load(adv.z[top]) - load(clean.z[top]));
  }

  // Passes over the classes of the calling thread.
  template <class Body>
  __device__ __forceinline__ void each(Body body) const {
    clean.template each<1>(body);
  }
  template <class Join, class Term, class V = F>
  __device__ __forceinline__ V reduce(Join join, Term term, V value = {}) const {
    each([&](int64_t j) { value = join(value, term(j)); });
    return group_reduce<kGroup>(value, join);
  }
};

// launch(the type that holds a pair of rows, null).
template <class T, class Launch>
void with_pair_of_rows(int64_t classes, Launch launch) {
  if (classes > kMostHeld) launch(static_cast<PairOfRows<T, kThreads>*>(nullptr));
  else launch(static_cast<PairOfRows<T, kWarp>*>(nullptr));
}

// The row of the calling group; rows or more if there is none for it.
template <class Row>
__device__ __forceinline__ int64_t own_row() {
  return thread_index() / Row::kGroup;
}

template <class Row>
unsigned blocks_of_pairs(int64_t rows) {
  return static_cast<unsigned>((rows * Row::kGroup + kThreads - 1) / kThreads);
}

template <class Row>
constexpr int kPairBlocks = sizeof(typename Row::F) == 8 ? 2 : 4;

}  // namespace fastadv::cuda
