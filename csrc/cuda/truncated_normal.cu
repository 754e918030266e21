// eps <- |N(0, sigma)| truncated to [0, upper], a draw for each row, the CPU's to the bit.
#include "../math/truncated_normal.h"
#include "../ops/truncated_normal.h"
#include "element.cuh"
#include "launch.cuh"

namespace fastadv::cuda {
namespace {

template <class T>
__global__ void __launch_bounds__(kThreads)
    truncated_normal_kernel(T* eps, int64_t examples, TruncatedNormal distribution, RngState rng_state) {
  const RngState numbers = resolved(rng_state);
  for (int64_t i = thread_index(); i < examples; i += thread_count())
    store(eps[i], static_cast<compute_t<T>>(truncated_eps(numbers, static_cast<uint64_t>(i), distribution)));
}

}  // namespace

cudaError_t truncated_normal(const EpsSample& sample, cudaStream_t stream) {
  if (sample.examples == 0) return cudaSuccess;
  with_type(sample.dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    FASTADV_LAUNCH(truncated_normal_kernel<T>, blocks_for(sample.examples), kThreads, stream,
                   static_cast<T*>(sample.eps), sample.examples, truncated_normal_of(sample.sigma, sample.upper),
                   sample.rng_state);
  });
  return cudaGetLastError();
}

}  // namespace fastadv::cuda
