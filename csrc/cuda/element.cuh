// Stored element types and 16-byte packs of them.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>
#include <cstring>

#include "../arguments.h"
#include "../math/compute_type.h"

namespace fastadv::cuda {

__device__ __forceinline__ float load(float value) { return value; }
__device__ __forceinline__ double load(double value) { return value; }
__device__ __forceinline__ float load(__nv_bfloat16 value) { return __bfloat162float(value); }
__device__ __forceinline__ float load(__half value) { return __half2float(value); }

__device__ __forceinline__ void store(float& to, float value) { to = value; }
__device__ __forceinline__ void store(double& to, double value) { to = value; }
__device__ __forceinline__ void store(__nv_bfloat16& to, float value) { to = __float2bfloat16_rn(value); }
__device__ __forceinline__ void store(__half& to, float value) { to = __float2half_rn(value); }

// What a thread reads and writes at once: 16 bytes, the widest access there is, or a single element where the
// operands' addresses do not allow it.
template <class T, int kWidth>
struct alignas(sizeof(T) * kWidth) Pack {
  T value[kWidth];
};
template <class T>
constexpr int kWide = 16 / sizeof(T);

// Element i of a pack. Of two bfloat16 in a word the second is already the upper half of a float, so that it need
// not be moved down and up again.
template <class T, int kWidth>
__device__ __forceinline__ compute_t<T> element(const Pack<T, kWidth>& pack, int i) {
  return load(pack.value[i]);
}
template <int kWidth>
__device__ __forceinline__ float element(const Pack<__nv_bfloat16, kWidth>& pack, int i) {
  if (i % 2 == 0) return load(pack.value[i]);
  uint32_t word;
  memcpy(&word, &pack.value[i - 1], sizeof(word));
  word &= 0xFFFF0000u;
  float value;
  memcpy(&value, &word, sizeof(value));
  return value;
}

// Calls function with a null pointer to the stored type.
template <class Function>
auto with_type(DType dtype, Function function) {
  switch (dtype) {
    case DType::float64: return function(static_cast<double*>(nullptr));
    case DType::bfloat16: return function(static_cast<__nv_bfloat16*>(nullptr));
    case DType::float16: return function(static_cast<__half*>(nullptr));
    default: return function(static_cast<float*>(nullptr));
  }
}

}  // namespace fastadv::cuda
