// The step along the gradient over its norm, in pixel values. Norms are in double and added in a fixed order: partial
// sums of fixed chunks, then one block an example over the chunks; no atomics, so a run repeats bit for bit.
#include <cmath>

#include "../ops/normalized_step.h"
#include "example_norms.cuh"

namespace fastadv::cuda {
namespace {

// What is reduced over an example, of one element: its gradient's magnitude, its square relative to a scale, the square
// of the distance that a step along it reaches. The factor is the example's. Zeros add nothing.
struct GradientMax {
  static constexpr bool kDistance = false, kMomentum = false;
  using Factor = double;
  __device__ __forceinline__ double factor(int64_t) const { return 1.0; }

  template <class F>
  __device__ __forceinline__ double operator()(const Element<F>& at, double, const Here<F>& here) const {
    return std::fabs(pixel_gradient(at.grad, here.inverse_std));
  }
};
struct GradientSquares {
  static constexpr bool kDistance = false, kMomentum = false;
  using Factor = double;
  const double* inverse_scale;  // [N]
  __device__ __forceinline__ double factor(int64_t example) const { return inverse_scale[example]; }

  template <class F>
  __device__ __forceinline__ double operator()(const Element<F>& at, double factor, const Here<F>& here) const {
    const double pixels = pixel_gradient(at.grad, here.inverse_std),
                 value = kSquaresNeedScale<F> ? pixels * factor : pixels;
    return value * value;
  }
};
struct DistanceSquares {
  static constexpr bool kDistance = true, kMomentum = false;
  using Factor = double;
  const double* inverse_length;  // [N]
  __device__ __forceinline__ double factor(int64_t example) const { return inverse_length[example]; }

  template <class F>
  __device__ __forceinline__ double operator()(const Element<F>& at, double factor, const Here<F>& here) const {
    const F there = moved(at.adv, at.grad, here.inverse_std, here.alpha, factor);
    const double pixels = pixel_distance(there, at.clean, here.std);
    return pixels * pixels;
  }
};

// scale and its inverse of 1, and the shrinkage of a first step, which is alpha long.
template <class F>
__global__ void __launch_bounds__(kThreads) prepare_kernel(int64_t examples, PerExampleOf<F> alpha, Totals<F> totals) {
  for (int64_t example = thread_index(); example < examples; example += thread_count()) {
    totals.scale[example] = totals.inverse_scale[example] = 1.0;
    totals.shrink[example] =
        shrink_onto_ball(std::fabs(static_cast<double>(at_example(alpha, example))), at_example(totals.eps, example));
  }
}

template <bool first>
struct NormalizedRule {
  static constexpr bool kFirst = first, kMomentum = false;

  template <class T, bool kLast>
  static constexpr int blocks() {
    return 3;
  }
  template <class T>
  static constexpr int tile_packs(bool) {
    return 1;
  }
  template <class T>
  static constexpr int tile_blocks(bool channels_last) {
    return channels_last || sizeof(T) == 2 ? 4 : 5;
  }

  Norm norm;
  const double *inverse_lengths, *shrinks;  // [N]
  double inverse_length = 0, shrink = 0;    // of the example

  __device__ __forceinline__ void enter(int64_t example) {
    inverse_length = inverse_lengths[example];
    if (norm == Norm::l2) shrink = shrinks[example];
  }

  template <class F>
  __device__ __forceinline__ F operator()(const Element<F>& at, const Constants<F>& here) const {
    const Bounds<F>& bounds = here.bounds;
    const F there = moved(at.adv, at.grad, here.inverse_std, bounds.alpha, inverse_length);
    return norm == Norm::l2 ? clamp(shrunk(there, at.clean, shrink), bounds.lower, bounds.upper)
                            : clip(there, at.clean, bounds.eps, bounds.lower, bounds.upper);
  }
};

template <class T>
UnitSteps reduce_unit_steps(const Step& step, Norm norm, double* workspace, cudaStream_t stream) {
  using F = compute_t<T>;
  const int64_t n = step.batch.examples;
  const Places<F> where = places<F>(step);
  const Totals<F> totals{workspace, workspace + n, workspace + 2 * n, workspace + 3 * n, where.eps};
  const Reductions<T> reduce(step, totals, partial_sums(step.batch, workspace), stream);

  FASTADV_LAUNCH(prepare_kernel<F>, blocks_for(n), kThreads, stream, n, where.alpha, totals);
  if (norm == Norm::linf || kSquaresNeedScale<F>) reduce(GradientMax{}, Larger{}, Finish::inverse_scale);
  if (norm == Norm::linf) return {totals.inverse_scale, totals.shrink};
  reduce(GradientSquares{totals.inverse_scale}, Add{}, Finish::inverse_length);
  if (step.clean != nullptr) reduce(DistanceSquares{totals.inverse_length}, Add{}, Finish::shrink);
  return {totals.inverse_length, totals.shrink};
}

}  // namespace

UnitSteps unit_steps(const Step& step, Norm norm, double* workspace, cudaStream_t stream) {
  return with_type(step.dtype, [&](auto* type) {
    return reduce_unit_steps<std::remove_pointer_t<decltype(type)>>(step, norm, workspace, stream);
  });
}

int64_t normalized_workspace(const Batch& batch) { return batch.examples * (4 + Chunks(batch).chunks); }
double* partial_sums(const Batch& batch, double* workspace) { return workspace + 4 * batch.examples; }

cudaError_t normalized_step(const Step& step, Norm norm, double* workspace, cudaStream_t stream) {
  if (step.batch.examples * step.batch.channels * step.batch.plane == 0) return cudaSuccess;
  const UnitSteps along = unit_steps(step, norm, workspace, stream);
  if (cudaPeekAtLastError() != cudaSuccess) return cudaGetLastError();  // no step along a norm that was not computed
  with_type(step.dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    if (step.clean == nullptr)
      launch_step<T>(step, NormalizedRule<true>{norm, along.inverse_length, along.shrink}, stream);
    else launch_step<T>(step, NormalizedRule<false>{norm, along.inverse_length, along.shrink}, stream);
  });
  return cudaGetLastError();
}

}  // namespace fastadv::cuda
