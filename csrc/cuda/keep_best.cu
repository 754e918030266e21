// Copies the examples that are better: a block each takes kChunk elements of one example, and those of an example that
// is not better read that, and no more.
#include "../ops/keep_best.h"
#include "partial_sums.cuh"

namespace fastadv::cuda {
namespace {

constexpr int kUnderWay = 4;  // packs of a thread that are loaded before the first is stored

// `count` elements, as unsigned integers of their size, in packs where multiples of 16 bytes lie alike in both.
template <class T, int kWidth>
__device__ __forceinline__ void copy_span(T* to, const T* from, int32_t count) {
  using P = std::conditional_t<kWidth == 1, T, Pack<uint32_t, 4>>;
  const int32_t thread = static_cast<int32_t>(threadIdx.x);
  int32_t head = static_cast<int32_t>((0 - reinterpret_cast<uintptr_t>(to) / sizeof(T)) % kWidth);
  if (head > count) head = count;
  const int32_t packs = (count - head) / kWidth, tail = head + packs * kWidth;
  const auto read_from = [&](int32_t pack) { return reinterpret_cast<const P*>(from + head + pack * kWidth); };
  const auto write_to = [&](int32_t pack) { return reinterpret_cast<P*>(to + head + pack * kWidth); };
  int32_t first = thread;
  for (; first + (kUnderWay - 1) * kThreads < packs; first += kUnderWay * kThreads) {
    P pack[kUnderWay];
#pragma unroll
    for (int p = 0; p < kUnderWay; ++p) pack[p] = *read_from(first + p * kThreads);
#pragma unroll
    for (int p = 0; p < kUnderWay; ++p) *write_to(first + p * kThreads) = pack[p];
  }
#pragma unroll 1
  for (; first < packs; first += kThreads) *write_to(first) = *read_from(first);
  if (thread < head) to[thread] = from[thread];
  if (tail + thread < count) to[tail + thread] = from[tail + thread];
}

template <class T, int kWidth>
__global__ void __launch_bounds__(kThreads, kFull)
    keep_best_kernel(const __grid_constant__ KeepBest args, const __grid_constant__ Chunks chunks) {
  for (int64_t block = blockIdx.x; block < chunks.blocks; block += gridDim.x) {
    const Chunk chunk = chunks.chunk(block);
    if (!args.better[chunk.example]) continue;
    const int64_t begin = chunk.example * chunks.elements + chunk.start;
#pragma unroll 1
    for (int p = 0; p < args.pairs; ++p)
      copy_span<T, kWidth>(static_cast<T*>(args.to[p]) + begin, static_cast<const T*>(args.from[p]) + begin,
                           static_cast<int32_t>(chunk.stop - chunk.start));
  }
}

template <class T>
void launch(const KeepBest& args, cudaStream_t stream) {
  const Chunks chunks({args.examples, 1, args.elements, false});
  const auto alike = [&](int p) {
    return (reinterpret_cast<uintptr_t>(args.to[p]) - reinterpret_cast<uintptr_t>(args.from[p])) % 16 == 0;
  };
  const bool wide = alike(0) && (args.pairs == 1 || alike(1));
  const auto kernel = wide ? keep_best_kernel<T, kWide<T>> : keep_best_kernel<T, 1>;
  FASTADV_LAUNCH(kernel, blocks_for(chunks.blocks, 1), kThreads, stream, args, chunks);
}

}  // namespace

cudaError_t keep_best(const KeepBest& args, cudaStream_t stream) {
  if (args.examples * args.elements == 0) return cudaSuccess;
  switch (args.dtype) {
    case DType::float64: launch<uint64_t>(args, stream); break;
    case DType::float32: launch<uint32_t>(args, stream); break;
    default: launch<uint16_t>(args, stream);
  }
  return cudaGetLastError();
}

}  // namespace fastadv::cuda
