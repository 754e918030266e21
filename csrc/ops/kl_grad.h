// The arguments of the kernels of scaled_kl_grad.
#pragma once

#include "../arguments.h"
#include "../kernels.h"

namespace fastadv {

struct KlGrad {
  const void* logits;        // [N, K]
  const void* clean_logits;  // [N, K]
  void* dlogits;             // [N, K]: the derivative is dlogits * 2^exponent
  int32_t* exponent;         // [N]
  DType dtype;
  int64_t rows, classes;
};

FASTADV_CPU_KERNEL(kl_grad, const KlGrad& args, int64_t begin, int64_t end);  // rows
FASTADV_CUDA_LAUNCHER(kl_grad, const KlGrad& args);

}  // namespace fastadv
