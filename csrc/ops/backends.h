// The back ends of an operator. Its file has one function, a template over the back end, which checks the arguments and
// calls run(Cpu{}, ...) or run(Cuda{}, ...). FASTADV_REGISTER(name) registers the function of that name for each back
// end that was compiled.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <optional>
#include <string>
#include <tuple>
#include <vector>

#ifdef FASTADV_WITH_CUDA
#include "../cuda/guard.h"
#endif

namespace fastadv {

using torch::stable::Tensor;
using Numbers = std::vector<double>;

struct Cpu {};
struct Cuda {};

// Called before PyTorch allocates a result on the device: an error of earlier work is then reported by the operator.
inline void check_device(Cpu, const char*) {}
#ifdef FASTADV_WITH_CUDA
inline void check_device(Cuda, const char* op) { cuda::check_device(op); }
#endif

// Work that makes a CPU thread worth waking: this many elements of images, or rows of logits, where an element costs
// one or two exponentials.
constexpr int64_t kGrain = 32768;
inline int64_t row_grain(int64_t classes) { return 1 + 8192 / classes; }

}  // namespace fastadv

#define FASTADV_REGISTER_FOR(key, backend, name) \
  STABLE_TORCH_LIBRARY_IMPL(fastadv, key, m) { m.impl(#name, TORCH_BOX(&name<backend>)); }

#if defined(FASTADV_SIMT)  // tests run the CUDA kernels on the host, in place of the CPU's own
#define FASTADV_REGISTER(name) FASTADV_REGISTER_FOR(CPU, Cuda, name)
#elif defined(FASTADV_WITH_CUDA)
#define FASTADV_REGISTER(name)         \
  FASTADV_REGISTER_FOR(CPU, Cpu, name) \
  FASTADV_REGISTER_FOR(CUDA, Cuda, name)
#else
#define FASTADV_REGISTER(name) FASTADV_REGISTER_FOR(CPU, Cpu, name)
#endif
