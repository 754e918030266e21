// The arguments of the kernels of row_losses.
#pragma once

#include "../arguments.h"
#include "../kernels.h"
#include "../math/margin.h"

namespace fastadv {

enum class RowLoss { cross_entropy, log_odds, margin };

struct RowLosses {
  const void* logits;      // [N, K]
  const int64_t* labels;   // [N]
  const int64_t* targets;  // [N] or null: of targeted_dlr
  void* losses;            // [N] of the compute dtype
  DType dtype;
  int64_t rows, classes;
  RowLoss loss;
  MarginLoss margin;  // which, for RowLoss::margin
};

FASTADV_CPU_KERNEL(row_losses, const RowLosses& args, int64_t begin, int64_t end);  // rows
FASTADV_CUDA_LAUNCHER(row_losses, const RowLosses& args);

}  // namespace fastadv
