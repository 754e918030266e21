// values <- -values, in place.
#include "../math/negate.h"
#include "../ops/negate.h"
#include "element.cuh"
#include "launch.cuh"

namespace fastadv::cuda {
namespace {

template <class T>
__global__ void __launch_bounds__(kThreads) negate_kernel(T* values, int64_t elements) {
  for (int64_t i = thread_index(); i < elements; i += thread_count()) store(values[i], negated(load(values[i])));
}

}  // namespace

cudaError_t negate(const Negate& args, cudaStream_t stream) {
  if (args.elements == 0) return cudaSuccess;
  with_type(args.dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    FASTADV_LAUNCH(negate_kernel<T>, blocks_for(args.elements), kThreads, stream, static_cast<T*>(args.values),
                   args.elements);
  });
  return cudaGetLastError();
}

}  // namespace fastadv::cuda
