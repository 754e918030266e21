// The arguments of the kernels of truncated_normal_.
#pragma once

#include "../arguments.h"
#include "../kernels.h"

namespace fastadv {

struct EpsSample {
  void* eps;  // [N]
  DType dtype;
  int64_t examples;
  double sigma, upper;
  RngState rng_state;
};

FASTADV_CPU_KERNEL(truncated_normal, const EpsSample& sample, int64_t begin, int64_t end);  // examples
FASTADV_CUDA_LAUNCHER(truncated_normal, const EpsSample& sample);

}  // namespace fastadv
