// The derivative of each row's margin or DLR loss, which is zero but for a few classes.
#include "../ops/target_grad.h"
#include "margin_rows.h"

namespace fastadv::cpu::FASTADV_ISA {

void margin_grad(const TargetGrad& args, int64_t begin, int64_t end) {
  with_type(args.dtype, [&](auto type) {
    using T = decltype(type);
    using F = compute_t<T>;
    for (int64_t i = begin; i < end; ++i) {
      const T* z = static_cast<const T*>(args.logits) + i * args.classes;  // [K]
      T* dz = static_cast<T*>(args.dlogits) + i * args.classes;            // [K]
      const int64_t label = args.labels[i], target = args.targets == nullptr ? label : args.targets[i];
      const Margin margin = margin_of_row(z, args.margin, ranking_of(z, args.classes), label, target);
      const SparseRow<F> row = fastadv::margin_grad<F>(margin, args.exponent != nullptr);
      for (int64_t j = 0; j < args.classes; ++j) store(dz[j], row.elsewhere);
      for (int k = 0; k < SparseRow<F>::kEntries; ++k)
        if (row.index[k] != kNoClass) store(dz[row.index[k]], row.value[k]);
      args.target[i] = target;
      if (args.exponent != nullptr) args.exponent[i] = row.exponent;
    }
  });
}

}  // namespace fastadv::cpu::FASTADV_ISA
