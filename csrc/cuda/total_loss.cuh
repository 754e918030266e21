// The sum of the rows' shares of a loss.
#pragma once

#include "launch.cuh"
#include "reduce.cuh"

namespace fastadv::cuda {
namespace {

// One block adds the rows in a fixed order, so that a run repeats bit for bit.
template <class F>
__global__ void __launch_bounds__(kThreads) total_kernel(const F* row_loss, int64_t rows, F* loss) {
  double value = 0.0;
  for (int64_t i = threadIdx.x; i < rows; i += kThreads) value += row_loss[i];
  value = group_reduce<kThreads>(value, Add{});
  if (threadIdx.x == 0) *loss = static_cast<F>(value);
}

}  // namespace
}  // namespace fastadv::cuda
