// Totals per example: of the norms of gradients, and of how far a step leads. Partial sums of fixed chunks, then one
// block an example over the chunks; no atomics, so a run repeats bit for bit.
#pragma once

#include <cmath>

#include "../ops/normalized_step.h"
#include "partial_sums.cuh"

namespace fastadv::cuda {
namespace {

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

// Passes over a step's operands, whose totals become what `finish` names.
template <class T>
struct Reductions {
  const Step& step;
  Totals<compute_t<T>> totals;
  double* partial;  // [N, chunks]
  cudaStream_t stream;
  Layout layout;
  bool wide;

  Reductions(const Step& step, const Totals<compute_t<T>>& totals, double* partial, cudaStream_t stream)
      : step(step), totals(totals), partial(partial), stream(stream) {
    const int64_t total = step.batch.examples * step.batch.channels * step.batch.plane;
    layout = {total, 0, total};
    wide = wide_layout<T>(total, step.adv, {step.clean, step.grad, step.previous}, &layout);
  }

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

}  // namespace

// What a step along the gradient is multiplied by: the inverse of the gradient's norm, and for l2 the factor that
// projects onto the ball.
struct UnitSteps {
  const double *inverse_length, *shrink;  // [N], in the workspace
};

// Launches their computation; workspace: normalized_workspace(batch) doubles.
UnitSteps unit_steps(const Step& step, Norm norm, double* workspace, cudaStream_t stream);
double* partial_sums(const Batch& batch, double* workspace);  // [N, chunks], free after unit_steps

}  // namespace fastadv::cuda
