// The arguments of the kernels of target_grad and scaled_target_grad.
#pragma once

#include "../arguments.h"
#include "../kernels.h"

namespace fastadv {

enum class Rule { label, predicted, least_likely, random, entropy };

struct TargetGrad {
  const void* logits;     // [N, K]
  const int64_t* labels;  // [N] or null
  void* dlogits;          // [N, K]
  int64_t* target;        // [N]
  int32_t* exponent;      // [N] or null: the derivative is dlogits * 2^exponent, or dlogits itself
  DType dtype;
  int64_t rows, classes;
  Rule rule;
  double label_smoothing;
  RngState rng_state;
};

FASTADV_CPU_KERNEL(target_grad, const TargetGrad& args, int64_t begin, int64_t end);  // rows
FASTADV_CUDA_LAUNCHER(target_grad, const TargetGrad& args);

}  // namespace fastadv
