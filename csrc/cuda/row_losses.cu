// The loss of each row of logits.
#include "../math/log_odds.h"
#include "../ops/row_losses.h"
#include "logit_rows.cuh"
#include "margin_rows.cuh"

namespace fastadv::cuda {
namespace {

// The calling group's row, and its loss in row_loss.
template <class Row, class Loss>
__device__ __forceinline__ void with_loss_of_row(const RowLosses& args, Loss loss) {
  using F = typename Row::F;
  const int64_t i = thread_index() / Row::kGroup;
  if (i >= args.rows) return;
  const Row row{static_cast<const typename Row::Stored*>(args.logits) + i * args.classes, nullptr, args.classes,
                static_cast<int>(threadIdx.x) % Row::kGroup};
  const F result = loss(row, i);
  if (row.lane == 0) static_cast<F*>(args.losses)[i] = result;
}

template <class Row>
__global__ void __launch_bounds__(kThreads, kMarginBlocks<Row>)
    margin_loss_kernel(const __grid_constant__ RowLosses args) {
  with_loss_of_row<Row>(args, [&](const Row& row, int64_t i) {
    const int64_t label = args.labels[i], target = args.targets == nullptr ? label : args.targets[i];
    const auto ranking = ranking_of(row);
    return static_cast<typename Row::F>(loss_of(margin_of_row(row, args.margin, ranking, label, target), ranking));
  });
}

template <class Row>
__global__ void __launch_bounds__(kThreads, kMarginBlocks<Row>)
    log_odds_kernel(const __grid_constant__ RowLosses args) {
  using F = typename Row::F;
  with_loss_of_row<Row>(args, [&](const Row& row, int64_t i) {
    const int32_t label = class_or_none(args.labels[i], args.classes);
    const F largest = row.reduce(
        Larger{}, [&](int64_t j) { return j == label ? static_cast<F>(-INFINITY) : load(row.z[j]); },
        static_cast<F>(-INFINITY));
    const F origin = origin_or_zero(largest);
    const F odds = log_odds(origin, row.sum_of_others(label, origin), shifted_or_nan(row.z, label, F(0)));
    return args.loss == RowLoss::log_odds ? odds : cross_entropy_of(odds);
  });
}

}  // namespace

cudaError_t row_losses(const RowLosses& args, cudaStream_t stream) {
  if (args.rows == 0) return cudaSuccess;
  with_type(args.dtype, [&](auto* type) {
    with_memory_row<std::remove_pointer_t<decltype(type)>>(args.classes, [&](auto* row) {
      using Row = std::remove_pointer_t<decltype(row)>;
      const unsigned blocks = blocks_of_rows<Row>(args.rows);
      if (args.loss == RowLoss::margin) FASTADV_LAUNCH(margin_loss_kernel<Row>, blocks, kThreads, stream, args);
      else FASTADV_LAUNCH(log_odds_kernel<Row>, blocks, kThreads, stream, args);
    });
  });
  return cudaGetLastError();
}

}  // namespace fastadv::cuda
