// The model's input for each value of a pixel, in the shared memory of a block.
#pragma once

#include "../math/from_pixels.h"
#include "element.cuh"
#include "launch.cuh"

namespace fastadv::cuda {

constexpr int kTables = 4;  // channels whose tables a block keeps; values of more are computed for each element

// All threads of a block fill its tables.
template <class T>
__device__ __forceinline__ void fill_tables(const FromPixels& args, T (&tables)[kTables * kLevels]) {
  const uint32_t filled = static_cast<uint32_t>(fastadv::tables(args)) * kLevels;
#pragma unroll 1
  for (uint32_t i = threadIdx.x; i < filled; i += kThreads)
    store(tables[i], input_of<compute_t<T>>(args, i / kLevels, i % kLevels));
  __syncthreads();
}

}  // namespace fastadv::cuda
