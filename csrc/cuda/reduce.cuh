// Reductions over a group of threads: a warp by shuffles, a block by shuffles and one exchange in shared memory.
#pragma once

#include <cuda_runtime.h>

#include <cmath>
#include <cstdint>

namespace fastadv::cuda {

constexpr int kWarp = 32;

template <class V, class Join>
__device__ __forceinline__ V warp_reduce(V value, Join join) {
#pragma unroll
  for (int distance = kWarp / 2; distance > 0; distance /= 2)
    value = join(value, __shfl_xor_sync(0xFFFFFFFFu, value, distance));
  return value;
}

// Every thread of the group gets the result. kGroup is a warp or a whole block of up to 1,024 threads.
template <int kGroup, class V, class Join>
__device__ __forceinline__ V group_reduce(V value, Join join) {
  value = warp_reduce(value, join);
  if constexpr (kGroup > kWarp) {
    constexpr int warps = kGroup / kWarp;
    __shared__ V partial[warps];
    __syncthreads();  // the previous reduction's readers are done with the exchange
    if (threadIdx.x % kWarp == 0) partial[threadIdx.x / kWarp] = value;
    __syncthreads();
    value = partial[0];
#pragma unroll
    for (int w = 1; w < warps; ++w) value = join(value, partial[w]);
  }
  return value;
}

struct Add {
  template <class V>
  __device__ __forceinline__ V operator()(V a, V b) const {
    return a + b;
  }
};
// These pass over a b that is NaN. In float they are an instruction; in double one more than the comparison.
struct Larger {
  __device__ __forceinline__ float operator()(float a, float b) const { return std::fmax(a, b); }
  __device__ __forceinline__ double operator()(double a, double b) const { return b > a ? b : a; }
};
struct Smaller {
  __device__ __forceinline__ int32_t operator()(int32_t a, int32_t b) const { return b < a ? b : a; }
  __device__ __forceinline__ float operator()(float a, float b) const { return std::fmin(a, b); }
  __device__ __forceinline__ double operator()(double a, double b) const { return b < a ? b : a; }
};

}  // namespace fastadv::cuda
