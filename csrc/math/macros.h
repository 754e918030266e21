// Marks functions that the host and the device share.
//
// They have internal linkage and are always inlined: the CPU kernels are compiled once per instruction set, and an
// out-of-line copy picked by the linker could use instructions that the machine does not have.
#pragma once

#if defined(__CUDACC__)
#define FASTADV_HOST_DEVICE static __host__ __device__ __forceinline__
#else
#define FASTADV_HOST_DEVICE static inline __attribute__((always_inline))
#endif
