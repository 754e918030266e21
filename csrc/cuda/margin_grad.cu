// The derivative of each row's margin or DLR loss, which is zero but for a few classes.
#include "../ops/target_grad.h"
#include "logit_rows.cuh"
#include "margin_rows.cuh"

namespace fastadv::cuda {
namespace {

template <class Row>
__global__ void __launch_bounds__(kThreads, kMarginBlocks<Row>)
    margin_grad_kernel(const __grid_constant__ TargetGrad args) {
  using F = typename Row::F;
  with_own_row<Row>(args, [&](Row row, int64_t i) {
    const int64_t label = args.labels[i], target = args.targets == nullptr ? label : args.targets[i];
    const Margin margin = margin_of_row(row, args.margin, ranking_of(row), label, target);
    const SparseRow<F> grad = fastadv::margin_grad<F>(margin, args.exponent != nullptr);
    row.each([&](int64_t j) { store(row.dz[j], entry(grad, static_cast<int32_t>(j))); });
    if (row.lane != 0) return;
    args.target[i] = target;
    if (args.exponent != nullptr) args.exponent[i] = grad.exponent;
  });
}

}  // namespace

cudaError_t margin_grad(const TargetGrad& args, cudaStream_t stream) {
  if (args.rows == 0) return cudaSuccess;
  with_type(args.dtype, [&](auto* type) {
    with_memory_row<std::remove_pointer_t<decltype(type)>>(args.classes, [&](auto* row) {
      using Row = std::remove_pointer_t<decltype(row)>;
      FASTADV_LAUNCH(margin_grad_kernel<Row>, blocks_of_rows<Row>(args.rows), kThreads, stream, args);
    });
  });
  return cudaGetLastError();
}

}  // namespace fastadv::cuda
