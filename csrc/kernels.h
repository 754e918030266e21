// How the header of an operator declares its kernels, which no torch header reaches.
#pragma once

#include <cstdint>

#include "instruction_set.h"

// A CPU kernel, which cpu/ defines once per instruction set, in a namespace named after it. fastadv::cpu::name(...)
// calls the version that this machine runs.
//
// A kernel works on a range, so that its caller can split the work over threads: no result depends on the split.
#ifdef FASTADV_X86
#define FASTADV_CPU_KERNEL(name, ...)                                                        \
  namespace cpu::baseline {                                                                  \
  void name(__VA_ARGS__);                                                                    \
  }                                                                                          \
  namespace cpu::avx2 {                                                                      \
  void name(__VA_ARGS__);                                                                    \
  }                                                                                          \
  namespace cpu::avx512 {                                                                    \
  void name(__VA_ARGS__);                                                                    \
  }                                                                                          \
  namespace cpu {                                                                            \
  constexpr Versions<void(__VA_ARGS__)> name{{&baseline::name, &avx2::name, &avx512::name}}; \
  }
#else
#define FASTADV_CPU_KERNEL(name, ...)                            \
  namespace cpu::baseline {                                      \
  void name(__VA_ARGS__);                                        \
  }                                                              \
  namespace cpu {                                                \
  constexpr Versions<void(__VA_ARGS__)> name{{&baseline::name}}; \
  }
#endif

// What launches the CUDA kernels of an operator on a stream and returns the error of the launch,
// fastadv::cuda::name(..., stream); a .cu file in cuda/ defines it.
#ifdef FASTADV_WITH_CUDA
#include <cuda_runtime_api.h>
#define FASTADV_CUDA_LAUNCHER(name, ...)              \
  namespace cuda {                                    \
  cudaError_t name(__VA_ARGS__, cudaStream_t stream); \
  }
#else
#define FASTADV_CUDA_LAUNCHER(name, ...)
#endif
