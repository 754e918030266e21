// Costs of rows of logits and their derivatives: one launch, a warp a row, or a block where there are many classes.
// Operators: target_grad, scaled_target_grad, mixed_cross_entropy.
#include <cmath>

#include "../math/logit_grad.h"
#include "../math/noise.h"
#include "../ops/mixed_cross_entropy.h"
#include "../ops/target_grad.h"
#include "element.cuh"
#include "launch.cuh"
#include "reduce.cuh"

namespace fastadv::cuda {
namespace {

constexpr int64_t kWarpClasses = 1024;  // rows of up to so many classes are a warp's

// A value and the first class that has it.
template <class F>
struct Found {
  F value;
  int32_t index;
};

template <class F>
__device__ __forceinline__ Found<F> __shfl_xor_sync(unsigned mask, Found<F> found, int distance) {
  return {::__shfl_xor_sync(mask, found.value, distance), ::__shfl_xor_sync(mask, found.index, distance)};
}

struct FirstLargest {
  template <class F>
  __device__ __forceinline__ Found<F> operator()(Found<F> a, Found<F> b) const {
    return b.value > a.value || (b.value == a.value && b.index < a.index) ? b : a;
  }
};

// A group of threads over one row: thread `lane` of kGroup takes every kGroup-th class. D is the derivative's type.
template <class T, class D, int kGroup>
struct Row {
  using F = compute_t<T>;
  const T* z;  // [K]
  D* dz;       // [K]
  int64_t classes;
  int lane;

  __device__ __forceinline__ F shifted(int64_t j, F maximum) const { return load(z[j]) - maximum; }

  template <class Join, class Term>
  __device__ __forceinline__ F reduce(Join join, Term term) const {
    F value = 0;
    for (int64_t j = lane; j < classes; j += kGroup) value = join(value, term(j));
    return group_reduce<kGroup>(value, join);
  }

  // The largest of sign * z and its first class. NaN is passed over, and a row of NaN gives class 0.
  __device__ __forceinline__ Found<F> extreme(F sign) const {
    Found<F> best{-INFINITY, static_cast<int32_t>(classes)};
    for (int64_t j = lane; j < classes; j += kGroup)
      best = FirstLargest{}(best, Found<F>{sign * load(z[j]), static_cast<int32_t>(j)});
    best = group_reduce<kGroup>(best, FirstLargest{});
    if (best.index == classes) best.index = 0;
    return best;
  }

  __device__ __forceinline__ F sum_of_others(int64_t target, F origin) const {
    return reduce(Add{}, [&](int64_t j) { return j == target ? F(0) : std::exp(shifted(j, origin)); });
  }

  // d(cross-entropy) / dz times weight; exponentials, and others, their sum but for the target's, relative to origin.
  __device__ __forceinline__ void store_cross_entropy(int64_t target, F origin, F others, F sum, F weight,
                                                      Smoothing<F> smoothing) const {
    for (int64_t j = lane; j < classes; j += kGroup) {
      const F grad = j == target
                         ? cross_entropy_grad_target(others, sum, smoothing)
                         : cross_entropy_grad_other(static_cast<F>(std::exp(shifted(j, origin))), sum, smoothing);
      store(dz[j], weight * grad);
    }
  }

  // The row's loss times weight, and its derivative. Out-of-range targets give NaN.
  __device__ __forceinline__ F cross_entropy(int64_t target, F maximum, F weight, Smoothing<F> smoothing) const {
    const F others = sum_of_others(target, maximum);
    const F shifted_target = target >= 0 && target < classes ? shifted(target, maximum) : static_cast<F>(NAN);
    const F sum = others + std::exp(shifted_target);
    store_cross_entropy(target, maximum, others, sum, weight, smoothing);
    const F mean =
        smoothing.target == F(0) ? F(0) : reduce(Add{}, [&](int64_t j) { return shifted(j, maximum); }) / classes;
    return weight * fastadv::cross_entropy(static_cast<F>(std::log(sum)), shifted_target, mean, smoothing);
  }

  // The origin for classes below the maximum whose exponentials vanish.
  __device__ __forceinline__ Origin<F> origin_below(F maximum) const {
    F largest = -INFINITY;
    for (int64_t j = lane; j < classes; j += kGroup)
      if (load(z[j]) < maximum) largest = Larger{}(largest, load(z[j]));
    return origin_of_others(maximum, group_reduce<kGroup>(largest, Larger{}));
  }

  // Scaled derivatives: these return the exponent.

  __device__ __forceinline__ int32_t scaled_cross_entropy(int64_t target, F maximum, Smoothing<F> smoothing) const {
    F others = sum_of_others(target, maximum);
    const F sum = others + (target >= 0 && target < classes ? std::exp(shifted(target, maximum)) : static_cast<F>(NAN));
    Origin<F> origin{maximum, 0};
    if (smoothing.target == F(0) && is_certain(sum, others)) {
      origin = origin_below(maximum);
      others = sum_of_others(target, origin.value);
    }
    F largest = std::fabs(cross_entropy_grad_target(others, sum, smoothing));  // without smoothing of all classes
    if (smoothing.target > F(0) && largest == largest)
      largest = reduce(Larger{}, [&](int64_t j) {
        return j == target
                   ? largest
                   : std::fabs(cross_entropy_grad_other(static_cast<F>(std::exp(shifted(j, maximum))), sum, smoothing));
      });
    const Scale<F> scale = scale_of(largest, origin.exponent);
    store_cross_entropy(target, origin.value, others, sum, scale.factor, smoothing);
    return scale.exponent;
  }

  __device__ __forceinline__ int32_t entropy(F maximum, bool scaled) const {
    const F sum = reduce(Add{}, [&](int64_t j) { return static_cast<F>(std::exp(shifted(j, maximum))); });
    const F weighted = reduce(Add{}, [&](int64_t j) {
      const F s = shifted(j, maximum), e = std::exp(s);
      return e > F(0) ? e * s : F(0);
    });
    if (scaled && -weighted < kLeastOfOthers<F>) {
      const F ties = reduce(Add{}, [&](int64_t j) { return load(z[j]) == maximum ? F(1) : F(0); });
      if (sum == ties) return entropy_beside_ties(maximum, ties);
    }
    const F mean = weighted / sum;
    const auto grad = [&](int64_t j) {
      const F s = shifted(j, maximum);
      return entropy_grad(static_cast<F>(std::exp(s)), s, sum, mean);
    };
    Scale<F> scale{F(1), 0};
    if (scaled && sum == sum) scale = scale_of(reduce(Larger{}, [&](int64_t j) { return std::fabs(grad(j)); }), 0);
    for (int64_t j = lane; j < classes; j += kGroup) store(dz[j], scale.factor * grad(j));
    return scale.exponent;
  }

  __device__ __forceinline__ int32_t entropy_beside_ties(F maximum, F ties) const {
    const Origin<F> origin = origin_below(maximum);
    const auto grad = [&](int64_t j) {
      return load(z[j]) == maximum ? F(0)
                                   : entropy_grad_beside_ties(static_cast<F>(std::exp(shifted(j, origin.value))),
                                                              shifted(j, maximum), ties);
    };
    const F of_tie = -reduce(Add{}, grad) / ties, most = reduce(Larger{}, grad);
    const Scale<F> scale = scale_of(Larger{}(-of_tie, most), origin.exponent);
    for (int64_t j = lane; j < classes; j += kGroup)
      store(dz[j], scale.factor * (load(z[j]) == maximum ? of_tie : grad(j)));
    return scale.exponent;
  }
};

// The calling group's view of one row; args names logits, dlogits and classes.
template <class T, class D, int kGroup, class Args>
__device__ __forceinline__ Row<T, D, kGroup> row_of(const Args& args, int64_t row) {
  const int64_t first = row * args.classes;
  return {static_cast<const T*>(args.logits) + first, static_cast<D*>(args.dlogits) + first, args.classes,
          static_cast<int>(threadIdx.x) % kGroup};
}

template <int kGroup>
__device__ __forceinline__ int64_t group_index() {
  return thread_index() / kGroup;
}
template <int kGroup>
__device__ __forceinline__ int64_t group_count() {
  return thread_count() / kGroup;
}

template <class T, int kGroup>
__global__ void __launch_bounds__(kThreads, sizeof(T) == 8    ? 2
                                            : kGroup == kWarp ? 4
                                                              : 3)
    target_grad_kernel(const __grid_constant__ TargetGrad args) {
  using F = compute_t<T>;
  const Stream stream = resolved(args.stream);
  const Smoothing<F> smoothing = smoothing_of(static_cast<F>(args.label_smoothing), args.classes);
  for (int64_t row = group_index<kGroup>(); row < args.rows; row += group_count<kGroup>()) {
    const Row<T, T, kGroup> group = row_of<T, T, kGroup>(args, row);
    const Found<F> largest = group.extreme(F(1));
    int64_t target = largest.index;
    if (args.rule == Rule::label) target = args.labels[row];
    else if (args.rule == Rule::least_likely) target = group.extreme(F(-1)).index;
    else if (args.rule == Rule::random)
      target = random_class(stream, static_cast<uint64_t>(row), args.classes, largest.index);
    int32_t exponent = 0;
    if (args.rule == Rule::entropy) exponent = group.entropy(largest.value, args.exponent != nullptr);
    else if (args.exponent != nullptr) exponent = group.scaled_cross_entropy(target, largest.value, smoothing);
    else group.cross_entropy(target, largest.value, F(1), smoothing);
    if (group.lane == 0) {
      args.target[row] = target;
      if (args.exponent != nullptr) args.exponent[row] = exponent;
    }
  }
}

template <class T, int kGroup>
__global__ void __launch_bounds__(kThreads, sizeof(T) == 8 ? 3 : 5)
    mixed_kernel(const __grid_constant__ MixedCrossEntropy args) {
  using F = compute_t<T>;
  const Smoothing<F> smoothing = smoothing_of(static_cast<F>(args.label_smoothing), args.classes);
  for (int64_t row = group_index<kGroup>(); row < args.rows; row += group_count<kGroup>()) {
    const Row<T, F, kGroup> group = row_of<T, F, kGroup>(args, row);
    const F weight = static_cast<F>(row < args.k ? args.adversarial_weight : args.clean_weight);
    const F loss = group.cross_entropy(args.labels[row], group.extreme(F(1)).value, weight, smoothing);
    if (group.lane == 0) static_cast<F*>(args.row_loss)[row] = loss;
  }
}

// One block adds the rows in a fixed order, so that a run repeats bit for bit.
template <class F>
__global__ void __launch_bounds__(kThreads) total_kernel(const F* row_loss, int64_t rows, F* loss) {
  double value = 0.0;
  for (int64_t i = threadIdx.x; i < rows; i += kThreads) value += row_loss[i];
  value = group_reduce<kThreads>(value, Add{});
  if (threadIdx.x == 0) *loss = static_cast<F>(value);
}

}  // namespace

cudaError_t target_grad(const TargetGrad& args, cudaStream_t stream) {
  if (args.rows == 0) return cudaSuccess;
  with_type(args.dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    const bool warp = args.classes <= kWarpClasses;
    const auto kernel = warp ? target_grad_kernel<T, kWarp> : target_grad_kernel<T, kThreads>;
    FASTADV_LAUNCH(kernel, blocks_for(args.rows * (warp ? kWarp : kThreads)), kThreads, stream, args);
  });
  return cudaGetLastError();
}

cudaError_t mixed_cross_entropy(const MixedCrossEntropy& args, void* loss, cudaStream_t stream) {
  with_type(args.dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    using F = compute_t<T>;
    const bool warp = args.classes <= kWarpClasses;
    const auto kernel = warp ? mixed_kernel<T, kWarp> : mixed_kernel<T, kThreads>;
    FASTADV_LAUNCH(kernel, blocks_for(args.rows * (warp ? kWarp : kThreads)), kThreads, stream, args);
    FASTADV_LAUNCH(total_kernel<F>, 1, kThreads, stream, static_cast<const F*>(args.row_loss), args.rows,
                   static_cast<F*>(loss));
  });
  return cudaGetLastError();
}

}  // namespace fastadv::cuda
