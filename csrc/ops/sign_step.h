// The kernels of sign_step_.
#pragma once

#include "../arguments.h"
#include "../kernels.h"

namespace fastadv {

FASTADV_CPU_KERNEL(sign_step, const Step& step, int64_t begin, int64_t end);  // elements
FASTADV_CUDA_LAUNCHER(sign_step, const Step& step);

}  // namespace fastadv
