// How every kernel is launched, and how a thread finds its work.
#pragma once

#include <cuda_runtime.h>

#include "../arguments.h"

// Every launch goes through this macro: on a given stream, without dynamic shared memory. Tests that run kernels on the
// host define their own.
#ifndef FASTADV_LAUNCH
#define FASTADV_LAUNCH(kernel, blocks, threads, stream, ...) kernel<<<blocks, threads, 0, stream>>>(__VA_ARGS__)
#endif
#ifndef FASTADV_MOST_BLOCKS
#define FASTADV_MOST_BLOCKS 0x7FFFFFFF  // of a grid's first dimension
#endif

namespace fastadv::cuda {

constexpr int kThreads = 256;

// Blocks of kThreads that fill a multiprocessor's 2,048 threads. As a kernel's minimum of resident blocks, it limits
// the kernel to 32 registers; one that needs more asks for fewer blocks, so as not to spill.
constexpr int kFull = 8;

// Blocks for one item per thread; if that exceeds the largest grid, threads take several.
inline unsigned blocks_for(int64_t items, int threads = kThreads) {
  const int64_t blocks = (items + threads - 1) / threads, most = FASTADV_MOST_BLOCKS;
  return static_cast<unsigned>(blocks < most ? blocks : most);
}

// The same for a kernel whose blocks have work to do before the first item: no more than are resident at once.
inline unsigned resident_blocks_for(int64_t items) {
  int device = 0, multiprocessors = 1;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device);
  const int64_t blocks = blocks_for(items), most = int64_t{multiprocessors} * kFull;
  return static_cast<unsigned>(blocks < most ? blocks : most);
}

__device__ __forceinline__ int64_t thread_index() { return blockIdx.x * int64_t{blockDim.x} + threadIdx.x; }
__device__ __forceinline__ int64_t thread_count() { return gridDim.x * int64_t{blockDim.x}; }

}  // namespace fastadv::cuda
