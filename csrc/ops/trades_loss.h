// The arguments of the kernels of trades_loss.
#pragma once

#include "../arguments.h"
#include "../kernels.h"

namespace fastadv {

struct TradesLoss {
  const void* logits;      // [m, K], of the clean images
  const void* adv_logits;  // [m, K]
  const int64_t* labels;   // [m]
  void* dlogits;           // [m, K] of the compute dtype, which a scaled loss does not take out of its range
  void* dadv_logits;       // the same
  void* row_loss;          // [m] of the compute dtype: each row's share of the loss
  DType dtype;
  int64_t rows, classes;
  double weight, beta, label_smoothing;  // weight: 1 / m
};

FASTADV_CPU_KERNEL(trades_loss, const TradesLoss& args, int64_t begin, int64_t end);  // rows
// loss: a scalar of the compute dtype on the device.
FASTADV_CUDA_LAUNCHER(trades_loss, const TradesLoss& args, void* loss);

}  // namespace fastadv
