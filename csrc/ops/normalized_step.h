// The kernels of normalized_step_.
#pragma once

#include "../arguments.h"
#include "../kernels.h"
#include "../math/normalized_step.h"

namespace fastadv {

enum class Norm { l2, linf };

// Norms of an example are reduced in chunks.
FASTADV_HOST_DEVICE int64_t chunks_per_example(const Batch& batch) {
  return (batch.channels * batch.plane + kChunk - 1) / kChunk;
}

// Per example, in double: a scale divides the gradient before it is squared, the length is the gradient's norm, shrink
// projects onto the ball. Ranges of the first three are of chunks, that of the step is of elements.
FASTADV_CPU_KERNEL(gradient_max, const Step& step, double* partial, int64_t begin, int64_t end);
FASTADV_CPU_KERNEL(gradient_squares, const Step& step, const double* inverse_scale, double* partial, int64_t begin,
                   int64_t end);
FASTADV_CPU_KERNEL(distance_squares, const Step& step, const double* inverse_length, double* partial, int64_t begin,
                   int64_t end);
FASTADV_CPU_KERNEL(normalized_step, const Step& step, Norm norm, const double* inverse_length, const double* shrink,
                   int64_t begin, int64_t end);

// workspace: normalized_workspace(batch) doubles on the device.
FASTADV_CUDA_LAUNCHER(normalized_step, const Step& step, Norm norm, double* workspace);
namespace cuda {
int64_t normalized_workspace(const Batch& batch);
}

}  // namespace fastadv
