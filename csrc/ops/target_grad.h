// The arguments of the kernels of target_grad and scaled_target_grad.
#pragma once

#include "../arguments.h"
#include "../kernels.h"
#include "../math/margin.h"

namespace fastadv {

enum class Rule { label, predicted, least_likely, random, entropy, margin };

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
  MarginLoss margin;       // which, for Rule::margin
  const int64_t* targets;  // [N] or null: of targeted_dlr
};

// Rule::margin has kernels of its own, so that its ranking takes no registers from the others.
FASTADV_CPU_KERNEL(target_grad, const TargetGrad& args, int64_t begin, int64_t end);  // rows
FASTADV_CPU_KERNEL(margin_grad, const TargetGrad& args, int64_t begin, int64_t end);  // rows
FASTADV_CUDA_LAUNCHER(target_grad, const TargetGrad& args);
FASTADV_CUDA_LAUNCHER(margin_grad, const TargetGrad& args);

}  // namespace fastadv
