// A row of logits that a group of threads reads from memory in each pass: rows of many classes, which no registers
// hold, and the few whose prediction is so certain that they are gone through once more.
#pragma once

#include <cmath>

#include "../math/logit_grad.h"
#include "element.cuh"
#include "reduce.cuh"

namespace fastadv::cuda {

// A value and the first class that has it.
template <class F>
struct Found {
  F value;
  int32_t index;
};

template <class F>
__device__ __forceinline__ Found<F> __shfl_xor_sync(unsigned mask, Found<F> found, int distance) {
  return {::__shfl_xor_sync(mask, found.value, distance), ::__shfl_xor_sync(mask, found.index, distance)};
}

struct FirstSmallest {
  template <class F>
  __device__ __forceinline__ Found<F> operator()(Found<F> a, Found<F> b) const {
    return b.value < a.value || (b.value == a.value && b.index < a.index) ? b : a;
  }
};

template <class F>
struct EntropySums {
  F sum, weighted;  // of e_j, of entropy_term

  __device__ __forceinline__ EntropySums operator+(EntropySums other) const {
    return {sum + other.sum, weighted + other.weighted};
  }
};

template <class F>
__device__ __forceinline__ EntropySums<F> __shfl_xor_sync(unsigned mask, EntropySums<F> sums, int distance) {
  return {::__shfl_xor_sync(mask, sums.sum, distance), ::__shfl_xor_sync(mask, sums.weighted, distance)};
}

// The target as a class, or -1 if it is out of range.
__device__ __forceinline__ int32_t class_or_none(int64_t target, int64_t classes) {
  return target >= 0 && target < classes ? static_cast<int32_t>(target) : -1;
}

// z_target - origin; NaN where there is no target.
template <class T, class F>
__device__ __forceinline__ F shifted_or_nan(const T* z, int32_t target, F origin) {
  return target >= 0 ? load(z[target]) - origin : static_cast<F>(NAN);
}

// Thread `lane` of kThreadsOfRow takes every kThreadsOfRow-th class. D is the derivative's type.
template <class T, class D, int kThreadsOfRow>
struct MemoryRow {
  using Stored = T;
  using Derivative = D;
  using F = compute_t<T>;
  static constexpr int kGroup = kThreadsOfRow, kBlocks = 6;

  const T* z;  // [K]
  D* dz;       // [K]
  int64_t classes;
  int lane;

  __device__ __forceinline__ F shifted(int64_t j, F origin) const { return load(z[j]) - origin; }
  __device__ __forceinline__ F exponential(int64_t j, F origin) const {
    return static_cast<F>(std::exp(shifted(j, origin)));
  }

  // A warp's rows are the exception, which must not cost the others registers.
  template <int kUnderWay = 4, class Body>
  __device__ __forceinline__ void each(Body body) const {
#pragma unroll(kGroup == kWarp ? 1 : kUnderWay)
    for (int64_t j = lane; j < classes; j += kGroup) body(j);
  }

  template <class Join, class Term, class V = F>
  __device__ __forceinline__ V reduce(Join join, Term term, V value = {}) const {
    each([&](int64_t j) { value = join(value, term(j)); });
    return group_reduce<kGroup>(value, join);
  }

  // Extremes skip NaN; for a row of NaN the class is 0.

  __device__ __forceinline__ F maximum() const {
    F most = -INFINITY;
    each<16>([&](int64_t j) { most = Larger{}(most, load(z[j])); });  // the first pass waits for memory
    return group_reduce<kGroup>(most, Larger{});
  }

  __device__ __forceinline__ int64_t predicted(F maximum) const {
    int32_t first = static_cast<int32_t>(classes);
    each([&](int64_t j) {
      if (load(z[j]) == maximum && j < first) first = static_cast<int32_t>(j);
    });
    first = group_reduce<kGroup>(first, Smaller{});
    return first < classes ? first : 0;
  }

  __device__ __forceinline__ int64_t least_likely() const {
    const int32_t none = static_cast<int32_t>(classes);
    Found<F> best{INFINITY, none};
    each([&](int64_t j) { best = FirstSmallest{}(best, Found<F>{load(z[j]), static_cast<int32_t>(j)}); });
    const int32_t first = group_reduce<kGroup>(best, FirstSmallest{}).index;
    return first < none ? first : 0;
  }

  __device__ __forceinline__ F sum_of_others(int32_t target, F origin) const {
    return reduce(Add{}, [&](int64_t j) { return j == target ? F(0) : exponential(j, origin); });
  }

  // d(cross-entropy) / dz times weight; exponentials, and others, their sum but for the target's, relative to origin.
  __device__ __forceinline__ void store_cross_entropy(int32_t target, F origin, F others, F inverse_sum, F weight,
                                                      Smoothing<F> smoothing) const {
    each([&](int64_t j) {
      const F grad = j == target ? cross_entropy_grad_target(others, inverse_sum, smoothing)
                                 : cross_entropy_grad_other(exponential(j, origin), inverse_sum, smoothing);
      store(dz[j], weight * grad);
    });
  }

  // The row's loss times weight, and its derivative. Out-of-range targets give NaN.
  __device__ __forceinline__ F cross_entropy(int32_t target, F maximum, F weight, Smoothing<F> smoothing) const {
    const F others = sum_of_others(target, maximum), shifted_target = shifted_or_nan(z, target, maximum);
    const F sum = others + std::exp(shifted_target);
    store_cross_entropy(target, maximum, others, F(1) / sum, weight, smoothing);
    const F mean =
        smoothing.target == F(0) ? F(0) : reduce(Add{}, [&](int64_t j) { return shifted(j, maximum); }) / classes;
    return weight * fastadv::cross_entropy(static_cast<F>(std::log(sum)), shifted_target, mean, smoothing);
  }

  // The derivative of a cost, scaled or not, and its exponent.

  __device__ __forceinline__ int32_t cross_entropy_grad(int32_t target, F maximum, Smoothing<F> smoothing,
                                                        bool scaled) const {
    const F others = sum_of_others(target, maximum);
    const F sum = others + std::exp(shifted_or_nan(z, target, maximum)), inverse_sum = F(1) / sum;
    if (scaled && smoothing.target == F(0) && is_certain(sum, others)) return certain_cross_entropy(target, maximum);
    Scale<F> scale{F(1), 0};
    if (scaled) scale = scale_of(largest_grad(target, maximum, others, inverse_sum, smoothing), 0);
    // A power of two is exact, wherever it is multiplied.
    store_cross_entropy(target, maximum, others, scale.factor * inverse_sum, F(1), scale.factor * smoothing);
    return scale.exponent;
  }

  // That of the target, unless smoothing moves all.
  __device__ __forceinline__ F largest_grad(int32_t target, F maximum, F others, F inverse_sum,
                                            Smoothing<F> smoothing) const {
    const F of_target = std::fabs(cross_entropy_grad_target(others, inverse_sum, smoothing));
    if (!(smoothing.target > F(0)) || of_target != of_target) return of_target;
    return reduce(Larger{}, [&](int64_t j) {
      return j == target ? of_target
                         : std::fabs(cross_entropy_grad_other(exponential(j, maximum), inverse_sum, smoothing));
    });
  }

  // The target has all of the sum, which is 1.
  __device__ __forceinline__ int32_t certain_cross_entropy(int32_t target, F maximum) const {
    const Origin<F> origin = origin_below(maximum);
    const F others = sum_of_others(target, origin.value);
    const Scale<F> scale = scale_of(others, origin.exponent);
    store_cross_entropy(target, origin.value, others, scale.factor, F(1), {F(0), F(0)});
    return scale.exponent;
  }

  __device__ __forceinline__ int32_t entropy_grad(F maximum, bool scaled) const {
    const auto terms = [&](int64_t j) {
      const F s = shifted(j, maximum), e = static_cast<F>(std::exp(s));
      return EntropySums<F>{e, entropy_term(e, s)};
    };
    const EntropySums<F> sums = reduce(Add{}, terms, EntropySums<F>{});
    if (scaled && -sums.weighted < kLeastOfOthers<F>) {
      const F ties = reduce(Add{}, [&](int64_t j) { return load(z[j]) == maximum ? F(1) : F(0); });
      if (sums.sum == ties) return entropy_beside_ties(maximum, ties);
    }
    const F inverse_sum = F(1) / sums.sum, mean = sums.weighted / sums.sum;
    const auto grad = [&](int64_t j) {
      const F s = shifted(j, maximum);
      return fastadv::entropy_grad(static_cast<F>(std::exp(s)), s, inverse_sum, mean);
    };
    Scale<F> scale{F(1), 0};
    if (scaled && mean == mean) scale = scale_of(reduce(Larger{}, [&](int64_t j) { return std::fabs(grad(j)); }), 0);
    each([&](int64_t j) { store(dz[j], scale.factor * grad(j)); });
    return scale.exponent;
  }

  __device__ __forceinline__ int32_t entropy_beside_ties(F maximum, F ties) const {
    const Origin<F> origin = origin_below(maximum);
    const auto grad = [&](int64_t j) {
      return load(z[j]) == maximum ? F(0)
                                   : entropy_grad_beside_ties(exponential(j, origin.value), shifted(j, maximum), ties);
    };
    const F of_tie = -reduce(Add{}, grad) / ties, most = reduce(Larger{}, grad);
    const Scale<F> scale = scale_of(Larger{}(-of_tie, most), origin.exponent);
    each([&](int64_t j) { store(dz[j], scale.factor * (load(z[j]) == maximum ? of_tie : grad(j))); });
    return scale.exponent;
  }

  // The origin for classes below the maximum whose exponentials vanish.
  __device__ __forceinline__ Origin<F> origin_below(F maximum) const {
    return origin_of_others(
        maximum,
        reduce(Larger{}, [&](int64_t j) { return load(z[j]) < maximum ? load(z[j]) : F(-INFINITY); }, F(-INFINITY)));
  }
};

}  // namespace fastadv::cuda
