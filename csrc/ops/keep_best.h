// The arguments of the kernels of keep_best_.
#pragma once

#include "../arguments.h"
#include "../kernels.h"

namespace fastadv {

struct KeepBest {
  // Up to two pairs of the same shape and dtype, each dense: the images, and their gradients.
  static constexpr int kMostPairs = 2;
  void* to[kMostPairs];          // [N, ...]
  const void* from[kMostPairs];  // [N, ...]
  int pairs;
  const bool* better;  // [N]
  DType dtype;
  int64_t examples, elements;  // of an example
};

FASTADV_CPU_KERNEL(keep_best, const KeepBest& args, int64_t begin, int64_t end);  // elements of the batch
FASTADV_CUDA_LAUNCHER(keep_best, const KeepBest& args);

}  // namespace fastadv
