// A row of logits that a warp holds in registers, so that memory is read once and each exponential computed once.
#pragma once

#include "memory_row.cuh"

namespace fastadv::cuda {

constexpr int kMostHeld = 1024;  // classes: 32 registers a lane, or 64 of double

// In each round the warp holds kRound classes, a lane kWidth of them: neighbours, read and written as a pack, where
// every row begins at 16 bytes, and else every 32nd. Behind the last class they are -inf, whose exponential adds
// nothing.
template <class T, class D, bool kPacked>
struct RegisterRow {
  using Stored = T;
  using Derivative = D;
  using F = compute_t<T>;
  static constexpr int kGroup = kWarp, kBlocks = kPacked ? 4 : 3, kWidth = kWide<T>, kRound = kWarp * kWidth,
                       kRounds = kMostHeld / kRound;
  static constexpr int kUnit = kPacked ? kWidth : 1;  // classes that are all in the row or all past its end
  static constexpr int32_t kNone = INT32_MAX;

  const T* z;                    // [K]
  D* dz;                         // [K]
  int32_t classes, lane, first;  // first: the lane's own class
  int32_t rest;                  // classes from the lane's first on; negative past the end
  F value[kRounds][kWidth];      // of the class first + offset(round, i): z, then what becomes of it

  __device__ __forceinline__ RegisterRow(const T* logits, D* dlogits, int64_t count, int thread)
      : z(logits),
        dz(dlogits),
        classes(static_cast<int32_t>(count)),
        lane(thread),
        first(thread * kUnit),
        rest(classes - first) {
    read();
  }

  static __device__ __forceinline__ int32_t offset(int round, int i) {
    return round * kRound + (kPacked ? i : i * kWarp);
  }

  // Whether the unit that begins at i is in the row.
  __device__ __forceinline__ bool exists(int round, int i) const { return offset(round, i) < rest; }

  // The class's offset from the lane's first: that of a value, if the lane has it.
  __device__ __forceinline__ bool has(int32_t target) const {
    return target >= 0 && static_cast<uint32_t>(target - first) % (kWarp * kUnit) < kUnit;
  }

  // All loads come before the first conversion, which would wait for its own.
  __device__ __forceinline__ void read() {
    using Unit = Pack<T, kUnit>;
    Unit units[kRounds][kWidth / kUnit];
#pragma unroll
    for (int round = 0; round < kRounds; ++round)
#pragma unroll
      for (int i = 0; i < kWidth; i += kUnit) {
        Unit& unit = units[round][i / kUnit];
#pragma unroll
        for (int k = 0; k < kUnit; ++k) store(unit.value[k], F(-INFINITY));
        if (exists(round, i)) unit = *reinterpret_cast<const Unit*>(z + first + offset(round, i));
      }
#pragma unroll
    for (int round = 0; round < kRounds; ++round)
#pragma unroll
      for (int i = 0; i < kWidth; ++i) value[round][i] = load(units[round][i / kUnit].value[i % kUnit]);
  }

  // body(round, i) for each unit of the rounds that the row needs.
  template <class Body>
  __device__ __forceinline__ void each(Body body) const {
#pragma unroll
    for (int round = 0; round < kRounds; ++round) {
      if (round > 0 && round * kRound >= classes) break;
#pragma unroll
      for (int i = 0; i < kWidth; i += kUnit) body(round, i);
    }
  }

  // The sum over all values of term(value, its offset), which may change the value.
  template <class Term>
  __device__ __forceinline__ auto sum(Term term) {
    decltype(term(value[0][0], 0)) total{};
    each([&](int round, int i) {
#pragma unroll
      for (int k = 0; k < kUnit; ++k) total = total + term(value[round][i + k], offset(round, i + k));
    });
    return group_reduce<kGroup>(total, Add{});
  }

  // Joins `nothing` and term(value) of each class; values past the end are left out.
  template <class Join, class Term>
  __device__ __forceinline__ F reduce_classes(Join join, F nothing, Term term) const {
    F result = nothing;
#pragma unroll
    for (int round = 0; round < kRounds; ++round)
#pragma unroll
      for (int i = 0; i < kWidth; i += kUnit) {
        F part = nothing;
#pragma unroll
        for (int k = 0; k < kUnit; ++k) part = join(part, term(value[round][i + k]));
        if (exists(round, i)) result = join(result, part);
      }
    return group_reduce<kGroup>(result, join);
  }

  // Extremes skip NaN; for a row of NaN the class is 0.

  __device__ __forceinline__ F maximum() const {
    F most = -INFINITY;
#pragma unroll
    for (int round = 0; round < kRounds; ++round)
#pragma unroll
      for (int i = 0; i < kWidth; ++i) most = Larger{}(most, value[round][i]);
    return group_reduce<kGroup>(most, Larger{});
  }

  __device__ __forceinline__ int64_t predicted(F maximum) const { return first_of(maximum); }
  __device__ __forceinline__ int64_t least_likely() const {
    return first_of(reduce_classes(Smaller{}, INFINITY, [](F z) { return z; }));
  }

  // From the last to the first, so that the first one stays.
  __device__ __forceinline__ int64_t first_of(F wanted) const {
    int32_t found = kNone;
#pragma unroll
    for (int round = kRounds - 1; round >= 0; --round)
#pragma unroll
      for (int i = kWidth - 1; i >= 0; --i)
        if (value[round][i] == wanted) found = offset(round, i);
    found = group_reduce<kGroup>(found == kNone ? kNone : first + found, Smaller{});
    return found < classes ? found : 0;
  }

  // value <- exp(z - maximum); the sum of all but the target's, which is looked for in its own unit alone.
  __device__ __forceinline__ F exponentials(int32_t target, F maximum) {
    F others = 0;
    each([&](int round, int i) {
      F* const e = &value[round][i];
#pragma unroll
      for (int k = 0; k < kUnit; ++k) e[k] = static_cast<F>(std::exp(e[k] - maximum));
      const int32_t excepted = target - first - offset(round, i);
      if (static_cast<uint32_t>(excepted) >= kUnit) {
#pragma unroll
        for (int k = 0; k < kUnit; ++k) others += e[k];
      } else {
#pragma unroll
        for (int k = 0; k < kUnit; ++k) others += k == excepted ? F(0) : e[k];
      }
    });
    return group_reduce<kGroup>(others, Add{});
  }

  // dz <- grad(value)
  template <class Grad>
  __device__ __forceinline__ void store_all(Grad grad) const {
    using Unit = Pack<D, kUnit>;
    each([&](int round, int i) {
      Unit unit;
#pragma unroll
      for (int k = 0; k < kUnit; ++k) store(unit.value[k], grad(value[round][i + k]));
      if (exists(round, i)) *reinterpret_cast<Unit*>(dz + first + offset(round, i)) = unit;
    });
  }

  // d(cross-entropy) / dz times weight, from exponentials. The target's own comes last, from the lane that has it.
  __device__ __forceinline__ void store_cross_entropy(int32_t target, F others, F inverse_sum, F weight,
                                                      Smoothing<F> smoothing) const {
    store_all([&](F e) { return weight * cross_entropy_grad_other(e, inverse_sum, smoothing); });
    if (has(target)) store(dz[target], weight * cross_entropy_grad_target(others, inverse_sum, smoothing));
  }

  // The row's loss times weight, and its derivative. Out-of-range targets give NaN.
  __device__ __forceinline__ F cross_entropy(int32_t target, F maximum, F weight, Smoothing<F> smoothing) {
    const F shifted_target = shifted_or_nan(z, target, maximum);
    F mean = 0;
    if (smoothing.target != F(0)) mean = reduce_classes(Add{}, 0, [&](F z) { return z - maximum; }) / classes;
    const F others = exponentials(target, maximum), sum = others + std::exp(shifted_target);
    store_cross_entropy(target, others, F(1) / sum, weight, smoothing);
    return weight * fastadv::cross_entropy(static_cast<F>(std::log(sum)), shifted_target, mean, smoothing);
  }

  // The derivative of a cost, scaled or not, and its exponent. For a certain prediction the row is read again.

  __device__ __forceinline__ int32_t cross_entropy_grad(int32_t target, F maximum, Smoothing<F> smoothing,
                                                        bool scaled) {
    const F shifted_target = shifted_or_nan(z, target, maximum);
    const F others = exponentials(target, maximum), sum = others + std::exp(shifted_target), inverse_sum = F(1) / sum;
    if (scaled && smoothing.target == F(0) && is_certain(sum, others))
      return in_memory().certain_cross_entropy(target, maximum);
    Scale<F> scale{F(1), 0};
    if (scaled) scale = scale_of(in_memory().largest_grad(target, maximum, others, inverse_sum, smoothing), 0);
    // A power of two is exact, wherever it is multiplied.
    store_cross_entropy(target, others, scale.factor * inverse_sum, F(1), scale.factor * smoothing);
    return scale.exponent;
  }

  __device__ __forceinline__ int32_t entropy_grad(F maximum, bool scaled) {
    const EntropySums<F> sums = sum([&](F& value, int32_t) {
      value -= maximum;
      const F e = static_cast<F>(std::exp(value));
      return EntropySums<F>{e, entropy_term(e, value)};
    });
    if (scaled && -sums.weighted < kLeastOfOthers<F>) {
      const F ties = sum([](F shifted, int32_t) { return shifted == F(0) ? F(1) : F(0); });
      if (sums.sum == ties) return in_memory().entropy_beside_ties(maximum, ties);
    }
    const F inverse_sum = F(1) / sums.sum, mean = sums.weighted / sums.sum;
    F largest = 0;
    each([&](int round, int i) {
#pragma unroll
      for (int k = 0; k < kUnit; ++k) {
        F& grad = value[round][i + k];
        grad = fastadv::entropy_grad(static_cast<F>(std::exp(grad)), grad, inverse_sum, mean);
        largest = Larger{}(largest, std::fabs(grad));
      }
    });
    Scale<F> scale{F(1), 0};
    if (scaled && mean == mean) scale = scale_of(group_reduce<kGroup>(largest, Larger{}), 0);
    store_all([&](F grad) { return scale.factor * grad; });
    return scale.exponent;
  }

  __device__ __forceinline__ MemoryRow<T, D, kWarp> in_memory() const { return {z, dz, classes, lane}; }
};

}  // namespace fastadv::cuda
