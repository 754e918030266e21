// Kernels with one fault each, and the same kernels without it: what must be caught, and what must pass.
//
// faults <name> [planted]: runs the kernel without or with its fault. The exit status is 0 if nothing was caught and,
// for a kernel without a fault, the results are correct.
#include <cuda_runtime.h>

#include <cstring>
#include <vector>

#include "../../csrc/cuda/launch.cuh"

namespace {

constexpr int kThreads = 64;
constexpr unsigned kAll = 0xFFFFFFFFu;

__global__ void global_overflow(int* out, int count, bool planted) {
  const int i = static_cast<int>(fastadv::cuda::thread_index());
  if (i < count + planted) out[i] = i;
}

// Like group_reduce: a template's buffer, shared by the block.
template <int kSize>
__device__ __forceinline__ int last_of(int value, int at) {
  __shared__ int buffer[kSize];
  buffer[at] = value;
  __syncthreads();
  return buffer[kSize - 1];
}

__global__ void shared_overflow(int* out, int, bool planted) {
  const int i = static_cast<int>(threadIdx.x);
  out[i] = last_of<kThreads>(kThreads - 1, i + planted) - (kThreads - 1) + i;
}

__global__ void shared_pointer_overflow(int* out, int, bool planted) {
  __shared__ int buffer[kThreads];
  int* const end = buffer + kThreads;
  const int i = static_cast<int>(threadIdx.x);
  end[-1 - i + (planted && i == 0)] = i;
  __syncthreads();
  out[i] = planted ? i : end[-1 - i];
}

__global__ void shared_race(int* out, int, bool planted) {
  __shared__ int buffer[kThreads];
  const int i = static_cast<int>(threadIdx.x);
  buffer[i] = i;
  if (!planted) __syncthreads();
  out[kThreads - 1 - i] = buffer[kThreads - 1 - i];
}

// Lacks the barrier that keeps the next round from overwriting what this one still reads.
__global__ void race_of_rounds(int* out, int, bool planted) {
  __shared__ int buffer[kThreads];
  const int i = static_cast<int>(threadIdx.x);
  for (int round = 0; round < 3; ++round) {
    buffer[i] = i;
    __syncthreads();
    out[kThreads - 1 - i] = buffer[kThreads - 1 - i];
    if (!planted) __syncthreads();
  }
}

// Lanes write for each other, ordered only by a shuffle, which orders nothing.
__global__ void race_behind_shuffle(int* out, int, bool planted) {
  __shared__ int buffer[kThreads];
  const int i = static_cast<int>(threadIdx.x);
  buffer[i] = i;
  __shfl_xor_sync(kAll, i, 1);
  if (!planted) __syncthreads();
  out[i ^ 1] = buffer[i ^ 1];
}

// Every block writes the first number, each in a different thread.
__global__ void race_between_blocks(int* out, int, bool planted) {
  const int i = static_cast<int>(threadIdx.x);
  out[i] = i;
  if (planted && threadIdx.x == blockIdx.x) out[0] = 0;
}

__global__ void barrier_left_out(int* out, int, bool planted) {
  const int i = static_cast<int>(threadIdx.x);
  if (planted && i == 5) return;
  __syncthreads();
  out[i] = i;
}

__global__ void barrier_elsewhere(int* out, int, bool planted) {
  const int i = static_cast<int>(threadIdx.x);
  if (planted && i >= 32) {
    __syncthreads();
  } else {
    __syncthreads();
  }
  out[i] = i;
}

__global__ void lane_left_out(int* out, int, bool planted) {
  const int i = static_cast<int>(threadIdx.x);
  if (planted && i == 40) return;
  out[i] = __shfl_xor_sync(kAll, i ^ 1, 1);
}

__global__ void lane_elsewhere(int* out, int, bool planted) {
  const int i = static_cast<int>(threadIdx.x);
  if (planted && i % 32 < 16) {
    out[i] = __shfl_xor_sync(kAll, i ^ 1, 1);
  } else {
    out[i] = __shfl_xor_sync(kAll, i ^ 1, 1);
  }
}

__global__ void lane_at_barrier(int* out, int, bool planted) {
  const int i = static_cast<int>(threadIdx.x);
  if (planted && i == 3) __syncthreads();
  else out[i] = __shfl_xor_sync(kAll, i ^ 1, 1);
  if (i == 3) out[i] = i;
}

__global__ void lane_not_named(int* out, int, bool planted) {
  const int i = static_cast<int>(threadIdx.x);
  out[i] = __shfl_xor_sync(planted ? kAll >> 1 : kAll, i ^ 1, 1);
}

// Not a fault: features of simt.h that no kernel uses yet.
__global__ void votes_and_atomics(int* out, int, bool) {
  __shared__ int total;
  const int i = static_cast<int>(threadIdx.x), lane = i % 32;
  if (i == 0) total = 0;
  __syncthreads();
  atomicAdd(&total, i);
  const bool votes = __ballot_sync(kAll, lane < 7) == 0x7Fu && __any_sync(kAll, lane == 9) &&
                     !__all_sync(kAll, lane > 0) && __all_sync(kAll, true) && __shfl_sync(kAll, lane, 11) == 11;
  __syncthreads();
  out[i] = votes && total == kThreads * (kThreads - 1) / 2 ? i : -1;
}

struct Fault {
  const char* name;
  void (*run)(int* out, bool planted);
};

#define FAULT(name) \
  {#name, [](int* out, bool planted) { FASTADV_LAUNCH(name, 2, kThreads, nullptr, out, kThreads, planted); }}
constexpr Fault kFaults[] = {
    FAULT(global_overflow),   FAULT(shared_overflow),     FAULT(shared_pointer_overflow), FAULT(shared_race),
    FAULT(race_of_rounds),    FAULT(race_behind_shuffle), FAULT(race_between_blocks),     FAULT(barrier_left_out),
    FAULT(barrier_elsewhere), FAULT(lane_left_out),       FAULT(lane_elsewhere),          FAULT(lane_at_barrier),
    FAULT(lane_not_named),    FAULT(votes_and_atomics),
};

bool right(const std::vector<int>& out) {
  for (int i = 0; i < kThreads; ++i)
    if (out[i] != i) return false;
  return true;
}

cudaError_t error_of(unsigned blocks, unsigned threads) {
  FASTADV_LAUNCH(global_overflow, blocks, threads, nullptr, nullptr, 0, false);
  return cudaGetLastError();
}

bool launches_are_checked() {
  return error_of(1, 0) == cudaErrorInvalidConfiguration && error_of(0, 1) == cudaErrorInvalidConfiguration &&
         error_of(1, 1025) == cudaErrorInvalidConfiguration && error_of(1, 1024) == cudaSuccess;
}

}  // namespace

int main(int count, char** arguments) {
  if (count < 2) return 2;
  const bool planted = count > 2;
  if (std::strcmp(arguments[1], "launches") == 0) return launches_are_checked() ? 0 : 1;
  for (const Fault& fault : kFaults) {
    if (std::strcmp(arguments[1], fault.name) != 0) continue;
    std::vector<int> out(kThreads, -1);
    fault.run(out.data(), planted);
    return planted || right(out) ? 0 : 1;
  }
  return 2;
}
