// How every kernel is launched, and how a thread finds its work.
#pragma once

#include <cuda_runtime.h>

#include "../arguments.h"

// The one place that launches: kernels are started on a given stream, without dynamic shared memory.
#define FASTADV_LAUNCH(kernel, blocks, threads, stream, ...) kernel<<<blocks, threads, 0, stream>>>(__VA_ARGS__)

namespace fastadv::cuda {

constexpr int kThreads = 256;

// Blocks for `items` threads' worth of work, one item a thread; past the limit the threads stride on.
inline unsigned blocks_for(int64_t items, int threads = kThreads) {
  const int64_t blocks = (items + threads - 1) / threads, most = 0x7FFFFFFF;
  return static_cast<unsigned>(blocks < most ? blocks : most);
}

__device__ __forceinline__ int64_t thread_index() { return blockIdx.x * int64_t{blockDim.x} + threadIdx.x; }
__device__ __forceinline__ int64_t thread_count() { return gridDim.x * int64_t{blockDim.x}; }

}  // namespace fastadv::cuda
