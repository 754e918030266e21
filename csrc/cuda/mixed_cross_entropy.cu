// The paper's loss and its derivative: each row's share, then their sum.
#include "../ops/mixed_cross_entropy.h"
#include "logit_rows.cuh"
#include "total_loss.cuh"

namespace fastadv::cuda {
namespace {

template <class Row>
__global__ void __launch_bounds__(kThreads, kRowBlocks<Row>)
    mixed_kernel(const __grid_constant__ MixedCrossEntropy args, const Smoothing<typename Row::F> smoothing) {
  using F = typename Row::F;
  with_own_row<Row>(args, [&](Row row, int64_t i) {
    const F weight = static_cast<F>(i < args.k ? args.adversarial_weight : args.clean_weight);
    const F loss = row.cross_entropy(class_or_none(args.labels[i], args.classes), row.maximum(), weight, smoothing);
    if (row.lane == 0) static_cast<F*>(args.row_loss)[i] = loss;
  });
}

}  // namespace

cudaError_t mixed_cross_entropy(const MixedCrossEntropy& args, void* loss, cudaStream_t stream) {
  with_type(args.dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    using F = compute_t<T>;
    with_row<T, F>(args, [&](auto* row) {
      using Row = std::remove_pointer_t<decltype(row)>;
      FASTADV_LAUNCH(mixed_kernel<Row>, blocks_of_rows<Row>(args.rows), kThreads, stream, args,
                     smoothing_of(static_cast<compute_t<T>>(args.label_smoothing), args.classes));
    });
    FASTADV_LAUNCH(total_kernel<F>, 1, kThreads, stream, static_cast<const F*>(args.row_loss), args.rows,
                   static_cast<F*>(loss));
  });
  return cudaGetLastError();
}

}  // namespace fastadv::cuda
