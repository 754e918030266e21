// The arguments of the kernels of noise_step_.
#pragma once

#include "../arguments.h"
#include "../kernels.h"

namespace fastadv {

enum class Noise { sign, truncated_normal, normal, uniform };

struct NoiseStep {
  Step step;  // no grad, no alpha
  Noise kind;
  RngState rng_state;
};

FASTADV_CPU_KERNEL(noise_step, const NoiseStep& step, int64_t begin, int64_t end);  // examples * channels
FASTADV_CUDA_LAUNCHER(noise_step, const NoiseStep& step);

}  // namespace fastadv
