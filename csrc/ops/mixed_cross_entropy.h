// The arguments of the kernels of mixed_cross_entropy.
#pragma once

#include "../arguments.h"
#include "../kernels.h"

namespace fastadv {

struct MixedCrossEntropy {
  const void* logits;     // [m, K]
  const int64_t* labels;  // [m]
  void* dlogits;          // [m, K] of the compute dtype, which a scaled loss does not take out of its range
  void* row_loss;         // [m] of the compute dtype: each row's share of the loss
  DType dtype;
  int64_t rows, classes;
  int64_t k;  // rows [0, k) are adversarial
  double clean_weight, adversarial_weight, label_smoothing;
};

FASTADV_CPU_KERNEL(mixed_cross_entropy, const MixedCrossEntropy& args, int64_t begin, int64_t end);  // rows
// loss: a scalar of the compute dtype on the device.
FASTADV_CUDA_LAUNCHER(mixed_cross_entropy, const MixedCrossEntropy& args, void* loss);

}  // namespace fastadv
