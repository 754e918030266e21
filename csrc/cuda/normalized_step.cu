// The step along the gradient over its norm, in pixel values. Norms are in double and added in a fixed order: partial
// sums of fixed chunks, then one block an example over the chunks; no atomics, so a run repeats bit for bit.
#include <cmath>

#include "../math/normalized_step.h"
#include "cursor.cuh"
#include "launch.cuh"
#include "launchers.h"
#include "reduce.cuh"

namespace fastadv::cuda {
namespace {

template <class T>
struct Operands {
  T* adv;          // [N, C, ...]
  const T* clean;  // [N, C, ...]; adv itself before the first step
  const T* grad;   // [N, C, ...]
};

// Where a step along the normalised gradient leads from element i.
template <class T, class F, bool kLast>
__device__ __forceinline__ F moved_from(const Operands<T>& in, int64_t i, const Cursor<F, kLast>& at, double length) {
  return moved(load(in.adv[i]), load(in.grad[i]), at.std, at.bounds.alpha, length);
}

// The three quantities that are reduced over an example.
struct GradientMax {
  template <class T, class F, bool kLast>
  __device__ __forceinline__ double operator()(const Operands<T>& in, int64_t i, const Cursor<F, kLast>& at) const {
    return std::fabs(pixel_gradient(load(in.grad[i]), at.std));
  }
};
struct GradientSquares {
  const double* scale;  // [N]
  template <class T, class F, bool kLast>
  __device__ __forceinline__ double operator()(const Operands<T>& in, int64_t i, const Cursor<F, kLast>& at) const {
    const double value = pixel_gradient(load(in.grad[i]), at.std) / scale[at.example];
    return value * value;
  }
};
struct DistanceSquares {
  const double* length;  // [N]
  template <class T, class F, bool kLast>
  __device__ __forceinline__ double operator()(const Operands<T>& in, int64_t i, const Cursor<F, kLast>& at) const {
    const double pixels = pixel_distance(moved_from(in, i, at, length[at.example]), load(in.clean[i]), at.std);
    return pixels * pixels;
  }
};

// partial[example * chunks + chunk] <- reduction of one chunk; a block each.
template <class T, bool kLast, class Term, class Join>
__global__ void __launch_bounds__(kThreads)
    partial_kernel(const Operands<T> in, int64_t size, int64_t chunks, int64_t blocks, Term term, Join join,
                   double* partial, const __grid_constant__ Places<compute_t<T>> places) {
  for (int64_t block = blockIdx.x; block < blocks; block += gridDim.x) {
    const int64_t example = block / chunks, start = block % chunks * kChunk;
    const int64_t stop = start + kChunk < size ? start + kChunk : size;
    double value = 0.0;
    for (int64_t i = start + threadIdx.x; i < stop; i += kThreads) {
      const int64_t element = example * size + i;
      value = join(value, term(in, element, Cursor<compute_t<T>, kLast>(places, element)));
    }
    value = group_reduce<kThreads>(value, join);
    if (threadIdx.x == 0) partial[block] = value;
  }
}

enum class Finish { scale, l2_length, shrink };

// result[example] from the partial reductions of its chunks; a block each.
template <class F, class Join>
__global__ void __launch_bounds__(kThreads)
    finish_kernel(const double* partial, int64_t examples, int64_t chunks, Join join, Finish finish,
                  const double* scale, Amount<F> eps, double* result) {
  for (int64_t example = blockIdx.x; example < examples; example += gridDim.x) {
    double value = 0.0;
    for (int64_t c = threadIdx.x; c < chunks; c += kThreads) value = join(value, partial[example * chunks + c]);
    value = group_reduce<kThreads>(value, join);
    if (threadIdx.x != 0) continue;
    if (finish == Finish::shrink) result[example] = shrink_onto_ball(std::sqrt(value), amount(eps, example));
    else result[example] = length_or_one(finish == Finish::scale ? value : scale[example] * std::sqrt(value));
  }
}

template <class T, bool kLast>
__global__ void __launch_bounds__(kThreads)
    apply_kernel(const Operands<T> in, int64_t total, Norm norm, const double* length, const double* shrink,
                 const __grid_constant__ Places<compute_t<T>> places) {
  using F = compute_t<T>;
  for (int64_t i = thread_index(); i < total; i += thread_count()) {
    const Cursor<F, kLast> at(places, i);
    const F base = load(in.clean[i]);
    const F there = moved_from(in, i, at, length[at.example]);
    store(in.adv[i], norm == Norm::l2 ? clamp(shrunk(there, base, shrink[at.example]), at.bounds.lower, at.bounds.upper)
                                      : clip(there, base, at.bounds.eps, at.bounds.lower, at.bounds.upper));
  }
}

__global__ void fill_kernel(double* values, int64_t count, double value) {
  for (int64_t i = thread_index(); i < count; i += thread_count()) values[i] = value;
}

int64_t chunks_of(const Batch& batch) { return (batch.channels * batch.plane + kChunk - 1) / kChunk; }

template <class T, bool kLast>
void launch(const Step& step, Norm norm, double* workspace, cudaStream_t stream) {
  using F = compute_t<T>;
  const Batch& batch = step.batch;
  const int64_t n = batch.examples, size = batch.channels * batch.plane, chunks = chunks_of(batch);
  T* adv = static_cast<T*>(step.adv);
  const Operands<T> in{adv, step.clean == nullptr ? adv : static_cast<const T*>(step.clean),
                       static_cast<const T*>(step.grad)};
  const Places<F> where = places<F>(step);
  double *scale = workspace, *length = scale + n, *shrink = length + n, *partial = shrink + n;  // [N] x 3, [N, chunks]

  const auto reduce = [&](auto term, auto join, Finish finish, double* result) {
    FASTADV_LAUNCH((partial_kernel<T, kLast, decltype(term), decltype(join)>), blocks_for(n * chunks, 1), kThreads,
                   stream, in, size, chunks, n * chunks, term, join, partial, where);
    FASTADV_LAUNCH((finish_kernel<F, decltype(join)>), blocks_for(n, 1), kThreads, stream, partial, n, chunks, join,
                   finish, scale, where.eps, result);
  };
  // Squares of float64 can leave the range of double; those of the narrower types cannot.
  if (norm == Norm::linf) reduce(GradientMax{}, Larger{}, Finish::scale, length);
  else {
    if (step.dtype == DType::float64) reduce(GradientMax{}, Larger{}, Finish::scale, scale);
    else FASTADV_LAUNCH(fill_kernel, blocks_for(n), kThreads, stream, scale, n, 1.0);
    reduce(GradientSquares{scale}, Add{}, Finish::l2_length, length);
    reduce(DistanceSquares{length}, Add{}, Finish::shrink, shrink);
  }
  FASTADV_LAUNCH((apply_kernel<T, kLast>), blocks_for(n * size), kThreads, stream, in, n * size, norm, length, shrink,
                 where);
}

}  // namespace

int64_t normalized_workspace(const Batch& batch) { return batch.examples * (3 + chunks_of(batch)); }

cudaError_t normalized_step(const Step& step, Norm norm, double* workspace, cudaStream_t stream) {
  if (step.batch.examples * step.batch.channels * step.batch.plane == 0) return cudaSuccess;
  with_type(step.dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    if (step.batch.channels_last) launch<T, true>(step, norm, workspace, stream);
    else launch<T, false>(step, norm, workspace, stream);
  });
  return cudaGetLastError();
}

}  // namespace fastadv::cuda
