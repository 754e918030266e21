// The launchers of the kernels: plain arguments and a stream in, the launch's error out. No torch on this side.
#pragma once

#include <cuda_runtime_api.h>

#include "../arguments.h"

namespace fastadv::cuda {

cudaError_t sign_step(const Step& step, cudaStream_t stream);
cudaError_t noise_step(const NoiseStep& step, cudaStream_t stream);
cudaError_t truncated_normal(const EpsSample& sample, cudaStream_t stream);
cudaError_t from_pixels(const FromPixels& args, cudaStream_t stream);

// workspace: normalized_workspace(batch) doubles on the device.
int64_t normalized_workspace(const Batch& batch);
cudaError_t normalized_step(const Step& step, Norm norm, double* workspace, cudaStream_t stream);

cudaError_t target_grad(const TargetGrad& args, cudaStream_t stream);
// loss: a scalar of the compute dtype on the device.
cudaError_t mixed_cross_entropy(const MixedCrossEntropy& args, void* loss, cudaStream_t stream);

}  // namespace fastadv::cuda
