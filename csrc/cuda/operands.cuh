// What a step reads and writes, and what holds at its elements.
#pragma once

#include "cursor.cuh"

namespace fastadv::cuda {

template <class T>
struct Operands {
  T* adv;          // [N, C, ...]
  const T* clean;  // [N, C, ...]; null before the first step, where it is adv itself
  const T* grad;   // [N, C, ...]
  T* previous;     // [N, C, ...]; null for steps without momentum
};

template <class T>
Operands<T> operands(const Step& step) {
  return {static_cast<T*>(step.adv), static_cast<const T*>(step.clean), static_cast<const T*>(step.grad),
          static_cast<T*>(step.previous)};
}

// What is read of one element; zero what is not.
template <class F>
struct Element {
  F adv, clean, grad, previous;
};

template <class T, int kWidth>
__device__ __forceinline__ Pack<T, kWidth> read(const T* from, int64_t first) {
  return *reinterpret_cast<const Pack<T, kWidth>*>(from + first);
}

// What holds at an element of a step.
template <class F>
struct Constants {
  Bounds<F> bounds;
  double inverse_std;
};

// Steps kPacks packs of kWidth elements from element `first` on, kDistance elements apart.
//
// constants_of() is called once; the function that it returns maps i to the constants of the i-th element after the
// first. All packs are loaded before the first of them is used; the constants come before, because those that differ
// from example to example take registers to compute.
template <int kWidth, int kPacks, int kDistance, class T, class Rule, class ConstantsOf>
__device__ __forceinline__ void step_packs(const Operands<T>& in, int64_t first, int64_t example, Rule rule,
                                           ConstantsOf&& constants_of) {
  using P = Pack<T, kWidth>;
  rule.enter(example);
  auto constants = constants_of();
  P a[kPacks], c[kPacks], g[kPacks], b[kPacks];
#pragma unroll
  for (int p = 0; p < kPacks; ++p) {
    a[p] = read<T, kWidth>(in.adv, first + p * kDistance);
    g[p] = read<T, kWidth>(in.grad, first + p * kDistance);
    if (!Rule::kFirst) c[p] = read<T, kWidth>(in.clean, first + p * kDistance);
    if (Rule::kMomentum) b[p] = read<T, kWidth>(in.previous, first + p * kDistance);
  }
#pragma unroll
  for (int p = 0; p < kPacks; ++p) {
    if (Rule::kMomentum) *reinterpret_cast<P*>(in.previous + first + p * kDistance) = a[p];
#pragma unroll
    for (int i = 0; i < kWidth; ++i) {
      using F = compute_t<T>;
      const F here = element(a[p], i);
      const Element<F> all{here, Rule::kFirst ? here : element(c[p], i), element(g[p], i),
                           Rule::kMomentum ? element(b[p], i) : F(0)};
      store(a[p].value[i], rule(all, constants(p * kDistance + i)));
    }
    *reinterpret_cast<P*>(in.adv + first + p * kDistance) = a[p];
  }
}

}  // namespace fastadv::cuda
