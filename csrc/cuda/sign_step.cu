// adv <- clamp_range(clip_{clean, eps}(adv + alpha * sign(grad))), in place: one pass at the speed of memory.
#include "../ops/sign_step.h"
#include "step_kernel.cuh"

namespace fastadv::cuda {
namespace {

template <bool first>
struct SignRule {
  static constexpr bool kFirst = first, kMomentum = false;

  template <class T, bool kLast>
  static constexpr int blocks() {
    if (sizeof(T) == 8 || kLast) return 4;
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1000
    if (kFirst && sizeof(T) == 2) return 6;  // spills a register at 32
#endif
    return kFull;
  }
  template <class T>
  static constexpr int tile_packs(bool channels_last) {
    return first || sizeof(T) == 4 || channels_last ? 2 : 1;
  }
  template <class T>
  static constexpr int tile_blocks(bool channels_last) {
    return channels_last ? 5 : kFull;
  }

  __device__ __forceinline__ void enter(int64_t) {}

  template <class F>
  __device__ __forceinline__ F operator()(const Element<F>& at, const Constants<F>& here) const {
    return kFirst ? first_sign_step(at.adv, at.grad, here.bounds)
                  : fastadv::sign_step(at.adv, at.clean, at.grad, here.bounds);
  }
};

}  // namespace

cudaError_t sign_step(const Step& step, cudaStream_t stream) {
  if (step.batch.examples * step.batch.channels * step.batch.plane == 0) return cudaSuccess;
  with_type(step.dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    if (step.clean == nullptr) launch_step<T>(step, SignRule<true>{}, stream);
    else launch_step<T>(step, SignRule<false>{}, stream);
  });
  return cudaGetLastError();
}

}  // namespace fastadv::cuda
