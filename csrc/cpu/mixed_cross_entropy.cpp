// The paper's loss (section 3) and its derivative: each row's loss times its weight, and the weighted derivative.
#include "../ops/mixed_cross_entropy.h"

#include "row.h"

namespace fastadv::cpu::FASTADV_ISA {

void mixed_cross_entropy(const MixedCrossEntropy& args, int64_t begin, int64_t end) {
  with_type(args.dtype, [&](auto type) {
    using T = decltype(type);
    using F = compute_t<T>;
    F* row_loss = static_cast<F*>(args.row_loss);  // [m]
    const Smoothing<F> smoothing = smoothing_of(static_cast<F>(args.label_smoothing), args.classes);
    for (int64_t row = begin; row < end; ++row) {
      const T* z = static_cast<const T*>(args.logits) + row * args.classes;  // [K]
      F* dz = static_cast<F*>(args.dlogits) + row * args.classes;            // [K]
      const int64_t target = args.labels[row];
      const F weight = static_cast<F>(row < args.k ? args.adversarial_weight : args.clean_weight);
      const F maximum = row_extremes(z, args.classes).maximum;
      const RowSums<F> sums = row_sums(z, args.classes, target, maximum);
      row_loss[row] =
          weight * cross_entropy(std::log(sums.sum), load(z[target]) - maximum, sums.mean_shifted, smoothing);
      cross_entropy_row(z, dz, args.classes, target, maximum, sums, weight, smoothing);
    }
  });
}

}  // namespace fastadv::cpu::FASTADV_ISA
