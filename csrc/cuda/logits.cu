// Costs of rows of logits and their derivatives: one launch, a warp a row, or a block where there are many classes.
// Operators: target_grad, scaled_target_grad, mixed_cross_entropy.
#include "../math/noise.h"
#include "../ops/mixed_cross_entropy.h"
#include "../ops/target_grad.h"
#include "launch.cuh"
#include "register_row.cuh"

namespace fastadv::cuda {
namespace {

// body(row, its index) for the row of the calling group, if there is one; args names logits, dlogits, rows and classes.
// There is no loop over rows, whose registers would be the row's: all that memory holds fit a grid.
template <class Row, class Args, class Body>
__device__ __forceinline__ void with_own_row(const Args& args, Body body) {
  const int64_t i = thread_index() / Row::kGroup, first = i * args.classes;
  if (i >= args.rows) return;
  body(Row{static_cast<const typename Row::Stored*>(args.logits) + first,
           static_cast<typename Row::Derivative*>(args.dlogits) + first, args.classes,
           static_cast<int>(threadIdx.x) % Row::kGroup},
       i);
}

template <class Row>
unsigned blocks_of_rows(int64_t rows) {
  return static_cast<unsigned>((rows * Row::kGroup + kThreads - 1) / kThreads);
}

template <class Row>
constexpr int kRowBlocks = sizeof(typename Row::F) == 8 ? 2 : Row::kBlocks;

template <class Row>
__device__ __forceinline__ int64_t target_of(const Row& row, typename Row::F maximum, const TargetGrad& args,
                                             int64_t i) {
  if (args.rule == Rule::label) return args.labels[i];
  if (args.rule == Rule::least_likely) return row.least_likely();
  const int64_t predicted = row.predicted(maximum);
  return args.rule == Rule::random
             ? random_class(resolved(args.stream), static_cast<uint64_t>(i), args.classes, predicted)
             : predicted;
}

// Every rule but entropy.
template <class Row>
__global__ void __launch_bounds__(kThreads, kRowBlocks<Row>)
    target_grad_kernel(const __grid_constant__ TargetGrad args, const Smoothing<typename Row::F> smoothing) {
  with_own_row<Row>(args, [&](Row row, int64_t i) {
    const auto maximum = row.maximum();
    const int64_t target = target_of(row, maximum, args, i);
    if (row.lane == 0) args.target[i] = target;
    const int32_t exponent =
        row.cross_entropy_grad(class_or_none(target, args.classes), maximum, smoothing, args.exponent != nullptr);
    if (row.lane == 0 && args.exponent != nullptr) args.exponent[i] = exponent;
  });
}

template <class Row>
__global__ void __launch_bounds__(kThreads, kRowBlocks<Row>)
    entropy_grad_kernel(const __grid_constant__ TargetGrad args) {
  with_own_row<Row>(args, [&](Row row, int64_t i) {
    const auto maximum = row.maximum();
    const int64_t predicted = row.predicted(maximum);
    if (row.lane == 0) args.target[i] = predicted;
    const int32_t exponent = row.entropy_grad(maximum, args.exponent != nullptr);
    if (row.lane == 0 && args.exponent != nullptr) args.exponent[i] = exponent;
  });
}

template <class Row>
__global__ void __launch_bounds__(kThreads, kRowBlocks<Row>)
    mixed_kernel(const __grid_constant__ MixedCrossEntropy args, const Smoothing<typename Row::F> smoothing) {
  using F = typename Row::F;
  with_own_row<Row>(args, [&](Row row, int64_t i) {
    const F weight = static_cast<F>(i < args.k ? args.adversarial_weight : args.clean_weight);
    const F loss = row.cross_entropy(class_or_none(args.labels[i], args.classes), row.maximum(), weight, smoothing);
    if (row.lane == 0) static_cast<F*>(args.row_loss)[i] = loss;
  });
}

// One block adds the rows in a fixed order, so that a run repeats bit for bit.
template <class F>
__global__ void __launch_bounds__(kThreads) total_kernel(const F* row_loss, int64_t rows, F* loss) {
  double value = 0.0;
  for (int64_t i = threadIdx.x; i < rows; i += kThreads) value += row_loss[i];
  value = group_reduce<kThreads>(value, Add{});
  if (threadIdx.x == 0) *loss = static_cast<F>(value);
}

// launch(the type that holds a row of these logits, null).
template <class T, class D, class Args, class Launch>
void with_row(const Args& args, Launch launch) {
  const auto aligned = [](const void* pointer, size_t to) { return reinterpret_cast<uintptr_t>(pointer) % to == 0; };
  if (args.classes > kMostHeld) return launch(static_cast<MemoryRow<T, D, kThreads>*>(nullptr));
  if (args.classes % kWide<T> == 0 && aligned(args.logits, 16) && aligned(args.dlogits, kWide<T> * sizeof(D)))
    return launch(static_cast<RegisterRow<T, D, true>*>(nullptr));
  launch(static_cast<RegisterRow<T, D, false>*>(nullptr));
}

}  // namespace

cudaError_t target_grad(const TargetGrad& args, cudaStream_t stream) {
  if (args.rows == 0) return cudaSuccess;
  with_type(args.dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    with_row<T, T>(args, [&](auto* row) {
      using Row = std::remove_pointer_t<decltype(row)>;
      const unsigned blocks = blocks_of_rows<Row>(args.rows);
      if (args.rule == Rule::entropy) FASTADV_LAUNCH(entropy_grad_kernel<Row>, blocks, kThreads, stream, args);
      else
        FASTADV_LAUNCH(target_grad_kernel<Row>, blocks, kThreads, stream, args,
                       smoothing_of(static_cast<compute_t<T>>(args.label_smoothing), args.classes));
    });
  });
  return cudaGetLastError();
}

cudaError_t mixed_cross_entropy(const MixedCrossEntropy& args, void* loss, cudaStream_t stream) {
  with_type(args.dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    using F = compute_t<T>;
    with_row<T, F>(args, [&](auto* row) {
      using Row = std::remove_pointer_t<decltype(row)>;
      FASTADV_LAUNCH(mixed_kernel<Row>, blocks_of_rows<Row>(args.rows), kThreads, stream, args,
                     smoothing_of(static_cast<compute_t<T>>(args.label_smoothing), args.classes));
    });
    FASTADV_LAUNCH(total_kernel<F>, 1, kThreads, stream, static_cast<const F*>(args.row_loss), args.rows,
                   static_cast<F*>(loss));
  });
  return cudaGetLastError();
}

}  // namespace fastadv::cuda
