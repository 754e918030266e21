// The kernels of apgd_step_.
#pragma once

#include "normalized_step.h"

namespace fastadv {

struct ApgdStep {
  Step step;  // with previous
  double momentum;
};

// In the Linf ball.
FASTADV_CPU_KERNEL(apgd_sign_step, const ApgdStep& args, int64_t begin, int64_t end);  // elements

// In the L2 ball, given per example the inverse of the gradient's length and the factor that projects z. A range of the
// first is of chunks, that of the second is of elements.
FASTADV_CPU_KERNEL(apgd_distance_squares, const ApgdStep& args, const double* inverse_length, const double* shrink_z,
                   double* partial, int64_t begin, int64_t end);
FASTADV_CPU_KERNEL(apgd_unit_step, const ApgdStep& args, const double* inverse_length, const double* shrink_z,
                   const double* shrink, int64_t begin, int64_t end);

// workspace: for l2, apgd_workspace(batch) doubles on the device.
FASTADV_CUDA_LAUNCHER(apgd_step, const ApgdStep& args, Norm norm, double* workspace);
namespace cuda {
int64_t apgd_workspace(const Batch& batch);
}

}  // namespace fastadv
