// What negate_ tells its kernels.
#pragma once

#include "../arguments.h"
#include "../kernels.h"

namespace fastadv {

struct Negate {
  void* values;  // [...]
  DType dtype;
  int64_t elements;
};

FASTADV_CPU_KERNEL(negate, const Negate& args, int64_t begin, int64_t end);  // elements
FASTADV_CUDA_LAUNCHER(negate, const Negate& args);

}  // namespace fastadv
