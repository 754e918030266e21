// APGD's step with momentum, in place on adv and previous: in the Linf ball one pass at the speed of memory. In the L2
// ball, the gradient's norm and the distances that its two projections ask for come before.
#include "../math/apgd_step.h"
#include "../ops/apgd_step.h"
#include "example_norms.cuh"

namespace fastadv::cuda {
namespace {

template <class F>
struct ApgdSignRule {
  static constexpr bool kFirst = false, kMomentum = true;

  template <class T, bool kLast>
  static constexpr int blocks() {
    return sizeof(T) == 8 || kLast ? 3 : 5;
  }
  template <class T>
  static constexpr int tile_packs(bool) {
    return 1;
  }
  template <class T>
  static constexpr int tile_blocks(bool channels_last) {
    return channels_last ? 5 : 6;
  }

  Momentum<F> momentum;

  __device__ __forceinline__ void enter(int64_t) {}
  __device__ __forceinline__ F operator()(const Element<F>& at, const Constants<F>& here) const {
    return apgd_sign_step(at.adv, at.previous, at.clean, at.grad, here.bounds, momentum);
  }
};

// Where the step in the L2 ball leads before its second projection.
template <class F>
struct UnitMove {
  UnitSteps along;
  Momentum<F> momentum;

  __device__ __forceinline__ UnitStep of(int64_t example) const {
    return {along.inverse_length[example], along.shrink[example]};
  }
  __device__ __forceinline__ F operator()(const Element<F>& at, UnitStep example, double inverse_std,
                                          const Bounds<F>& bounds) const {
    return apgd_unit_move(at.adv, at.previous, at.clean, at.grad, inverse_std, bounds, example, momentum);
  }
};

template <class F>
struct MomentumDistanceSquares {
  static constexpr bool kDistance = true, kMomentum = true;
  using Factor = UnitStep;

  UnitMove<F> move;

  __device__ __forceinline__ UnitStep factor(int64_t example) const { return move.of(example); }
  __device__ __forceinline__ double operator()(const Element<F>& at, UnitStep example, const Here<F>& here) const {
    const Bounds<F> bounds{here.alpha, F(0), here.lower, here.upper};
    const double pixels = pixel_distance(move(at, example, here.inverse_std, bounds), at.clean, here.std);
    return pixels * pixels;
  }
};

template <class F>
struct ApgdUnitRule {
  static constexpr bool kFirst = false, kMomentum = true;

  template <class T, bool kLast>
  static constexpr int blocks() {
    return 2;
  }
  template <class T>
  static constexpr int tile_packs(bool) {
    return 1;
  }
  template <class T>
  static constexpr int tile_blocks(bool) {
    return 3;
  }

  UnitMove<F> move;
  const double* shrinks;  // [N]
  UnitStep along{};       // of the example
  double shrink = 0;

  __device__ __forceinline__ void enter(int64_t example) {
    along = move.of(example);
    shrink = shrinks[example];
  }
  __device__ __forceinline__ F operator()(const Element<F>& at, const Constants<F>& here) const {
    return clamp(shrunk(move(at, along, here.inverse_std, here.bounds), at.clean, shrink), here.bounds.lower,
                 here.bounds.upper);
  }
};

template <class T, class F = compute_t<T>>
void launch_unit_step(const Step& step, Momentum<F> momentum, double* workspace, cudaStream_t stream) {
  const UnitMove<F> move{unit_steps(step, Norm::l2, workspace, stream), momentum};
  double* shrink = workspace + normalized_workspace(step.batch);  // [N]
  const Totals<F> totals{nullptr, nullptr, nullptr, shrink, places<F>(step).eps};
  const Reductions<T> reduce(step, totals, partial_sums(step.batch, workspace), stream);
  reduce(MomentumDistanceSquares<F>{move}, Add{}, Finish::shrink);
  if (cudaPeekAtLastError() != cudaSuccess) return;  // no step along a norm that was not computed
  launch_step<T>(step, ApgdUnitRule<F>{move, shrink}, stream);
}

}  // namespace

int64_t apgd_workspace(const Batch& batch) { return normalized_workspace(batch) + batch.examples; }

cudaError_t apgd_step(const ApgdStep& args, Norm norm, double* workspace, cudaStream_t stream) {
  const Step& step = args.step;
  if (step.batch.examples * step.batch.channels * step.batch.plane == 0) return cudaSuccess;
  with_type(step.dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    using F = compute_t<T>;
    const Momentum<F> momentum = momentum_of<F>(args.momentum);
    if (norm == Norm::linf) launch_step<T>(step, ApgdSignRule<F>{momentum}, stream);
    else launch_unit_step<T>(step, momentum, workspace, stream);
  });
  return cudaGetLastError();
}

}  // namespace fastadv::cuda
