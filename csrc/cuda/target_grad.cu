// The target of each row of logits, and the derivative of its cost.
#include "../math/noise.h"
#include "../ops/target_grad.h"
#include "logit_rows.cuh"

namespace fastadv::cuda {
namespace {

template <class Row>
__device__ __forceinline__ int64_t target_of(const Row& row, typename Row::F maximum, const TargetGrad& args,
                                             int64_t i) {
  if (args.rule == Rule::label) return args.labels[i];
  if (args.rule == Rule::least_likely) return row.least_likely();
  const int64_t predicted = row.predicted(maximum);
  return args.rule == Rule::random
             ? random_class(resolved(args.rng_state), static_cast<uint64_t>(i), args.classes, predicted)
             : predicted;
}

// Every rule but entropy.
template <class Row>
__global__ void __launch_bounds__(kThreads, kRowBlocks<Row>)
    target_grad_kernel(const __grid_constant__ TargetGrad args, const Smoothing<typename Row::F> smoothing) {
  with_own_row<Row>(args, [&](Row row, int64_t i) {
    const auto maximum = row.maximum();
    const int64_t target = target_of(row, maximum, args, i);
    if (row.lane == 0) args.target[i] = target;
    const int32_t exponent =
        row.cross_entropy_grad(class_or_none(target, args.classes), maximum, smoothing, args.exponent != nullptr);
    if (row.lane == 0 && args.exponent != nullptr) args.exponent[i] = exponent;
  });
}

template <class Row>
__global__ void __launch_bounds__(kThreads, kRowBlocks<Row>)
    entropy_grad_kernel(const __grid_constant__ TargetGrad args) {
  with_own_row<Row>(args, [&](Row row, int64_t i) {
    const auto maximum = row.maximum();
    const int64_t predicted = row.predicted(maximum);
    if (row.lane == 0) args.target[i] = predicted;
    const int32_t exponent = row.entropy_grad(maximum, args.exponent != nullptr);
    if (row.lane == 0 && args.exponent != nullptr) args.exponent[i] = exponent;
  });
}

}  // namespace

cudaError_t target_grad(const TargetGrad& args, cudaStream_t stream) {
  if (args.rows == 0) return cudaSuccess;
  with_type(args.dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    with_row<T, T>(args, [&](auto* row) {
      using Row = std::remove_pointer_t<decltype(row)>;
      const unsigned blocks = blocks_of_rows<Row>(args.rows);
      if (args.rule == Rule::entropy) FASTADV_LAUNCH(entropy_grad_kernel<Row>, blocks, kThreads, stream, args);
      else
        FASTADV_LAUNCH(target_grad_kernel<Row>, blocks, kThreads, stream, args,
                       smoothing_of(static_cast<compute_t<T>>(args.label_smoothing), args.classes));
    });
  });
  return cudaGetLastError();
}

}  // namespace fastadv::cuda
