// The step along the gradient over its norm, in pixel values. Norms are in double and added in a fixed order: partial
// sums of fixed chunks, then one block an example over the chunks; no atomics, so a run repeats bit for bit.
#include <cmath>

#include "../ops/normalized_step.h"
#include "partial_sums.cuh"

namespace fastadv::cuda {
namespace {

// What is reduced over an example, of one element: its gradient's magnitude, its square relative to a scale, the square
// of the distance that a step along it reaches. The factor is the example's. Zeros add nothing.
struct GradientMax {
  static constexpr bool kDistance = false;
  __device__ __forceinline__ double factor(int64_t) const { return 1.0; }

  template <class F>
  __device__ __forceinline__ double operator()(F gradient, F, F, double, const Here<F>& here) const {
    return std::fabs(pixel_gradient(gradient, here.inverse_std));
  }
};
struct GradientSquares {
  static constexpr bool kDistance = false;
  const double* inverse_scale;  // [N]
  __device__ __forceinline__ double factor(int64_t example) const { return inverse_scale[example]; }

  template <class F>
  __device__ __forceinline__ double operator()(F gradient, F, F, double factor, const Here<F>& here) const {
    const double pixels = pixel_gradient(gradient, here.inverse_std),
                 value = kSquaresNeedScale<F> ? pixels * factor : pixels;
    return value * value;
  }
};
struct DistanceSquares {
  static constexpr bool kDistance = true;
  const double* inverse_length;  // [N]
  __device__ __forceinline__ double factor(int64_t example) const { return inverse_length[example]; }

  template <class F>
  __device__ __forceinline__ double operator()(F gradient, F adv, F clean, double factor, const Here<F>& here) const {
    const F there = moved(adv, gradient, here.inverse_std, here.alpha, factor);
    const double pixels = pixel_distance(there, clean, here.std);
    return pixels * pixels;
  }
};

enum class Finish { inverse_scale, inverse_length, shrink };

// What the totals become, per example.
template <class F>
struct Totals {
  double *scale, *inverse_scale, *inverse_length, *shrink;  // [N]
  PerExampleOf<F> eps;
};

// totals[example] from the partial reductions of its chunks; a block each.
template <class F, class Join>
__global__ void __launch_bounds__(kThreads)
    finish_kernel(const double* partial, int64_t examples, int64_t chunks, Join join, Finish finish, Totals<F> totals) {
  for (int64_t example = blockIdx.x; example < examples; example += gridDim.x) {
    double value = 0.0;
    for (int64_t c = threadIdx.x; c < chunks; c += kThreads) value = join(value, partial[example * chunks + c]);
    value = group_reduce<kThreads>(value, join);
    if (threadIdx.x != 0) continue;
    if (finish == Finish::shrink) {
      totals.shrink[example] = shrink_onto_ball(std::sqrt(value), at_example(totals.eps, example));
    } else if (finish == Finish::inverse_length) {
      totals.inverse_length[example] = inverse_or_zero(totals.scale[example] * std::sqrt(value));
    } else {
      totals.scale[example] = value;
      totals.inverse_scale[example] = inverse_or_zero(value);
    }
  }
}

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
  static constexpr bool kFirst = first;

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
  __device__ __forceinline__ F operator()(F adv, F clean, F gradient, const Constants<F>& here) const {
    const Bounds<F>& bounds = here.bounds;
    const F there = moved(adv, gradient, here.inverse_std, bounds.alpha, inverse_length);
    return norm == Norm::l2 ? clamp(shrunk(there, clean, shrink), bounds.lower, bounds.upper)
                            : clip(there, clean, bounds.eps, bounds.lower, bounds.upper);
  }
};

// The passes before the step: totals of what the norm asks for.
template <class T>
struct Reductions {
  const Step& step;
  Totals<compute_t<T>> totals;
  double* partial;  // [N, chunks]
  Layout layout;
  bool wide;
  cudaStream_t stream;

  template <class Term, class Join>
  void operator()(Term term, Join join, Finish finish) const {
    const int64_t n = step.batch.examples;
    const Chunks chunks(step.batch);
    FASTADV_LAUNCH(kernel(term, join), blocks_for(chunks.blocks, 1), kThreads, stream, operands<T>(step), layout.head,
                   chunks, term, join, partial, places<compute_t<T>>(step));
    FASTADV_LAUNCH((finish_kernel<compute_t<T>, Join>), blocks_for(n, 1), kThreads, stream, partial, n, chunks.chunks,
                   join, finish, totals);
  }

  template <class Term, class Join>
  auto kernel(Term, Join) const {
    constexpr int width = kWide<T>;
    if (step.batch.channels_last)
      return wide ? partial_kernel<T, width, true, Term, Join> : partial_kernel<T, 1, true, Term, Join>;
    return wide ? partial_kernel<T, width, false, Term, Join> : partial_kernel<T, 1, false, Term, Join>;
  }
};

template <class T>
void launch(const Step& step, Norm norm, double* workspace, cudaStream_t stream) {
  using F = compute_t<T>;
  const int64_t n = step.batch.examples, total = n * step.batch.channels * step.batch.plane;
  const Places<F> where = places<F>(step);
  const Totals<F> totals{workspace, workspace + n, workspace + 2 * n, workspace + 3 * n, where.eps};
  Layout layout{total, 0, total};
  const bool wide = wide_layout<T>(total, step.adv, step.clean, step.grad, &layout);
  const Reductions<T> reduce{step, totals, workspace + 4 * n, layout, wide, stream};

  const double* inverse_length = totals.inverse_length;
  FASTADV_LAUNCH(prepare_kernel<F>, blocks_for(n), kThreads, stream, n, where.alpha, totals);
  if (norm == Norm::linf || kSquaresNeedScale<F>) reduce(GradientMax{}, Larger{}, Finish::inverse_scale);
  if (norm == Norm::linf) inverse_length = totals.inverse_scale;
  else {
    reduce(GradientSquares{totals.inverse_scale}, Add{}, Finish::inverse_length);
    if (step.clean != nullptr) reduce(DistanceSquares{inverse_length}, Add{}, Finish::shrink);
  }
  if (cudaPeekAtLastError() != cudaSuccess) return;  // no step along a norm that was not computed
  if (step.clean == nullptr) launch_step<T>(step, NormalizedRule<true>{norm, inverse_length, totals.shrink}, stream);
  else launch_step<T>(step, NormalizedRule<false>{norm, inverse_length, totals.shrink}, stream);
}

}  // namespace

int64_t normalized_workspace(const Batch& batch) { return batch.examples * (4 + Chunks(batch).chunks); }

cudaError_t normalized_step(const Step& step, Norm norm, double* workspace, cudaStream_t stream) {
  if (step.batch.examples * step.batch.channels * step.batch.plane == 0) return cudaSuccess;
  with_type(step.dtype,
            [&](auto* type) { launch<std::remove_pointer_t<decltype(type)>>(step, norm, workspace, stream); });
  return cudaGetLastError();
}

}  // namespace fastadv::cuda
