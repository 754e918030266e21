// The target of each row of logits and the derivative of its cost, in three passes over a row that stays in cache.
#include "../../math/noise.h"
#include "row.h"

namespace fastadv::cpu::FASTADV_ISA {
namespace {

template <class F>
FASTADV_HOST_DEVICE int64_t choose_target(const TargetGrad& args, const Stream& stream, int64_t row,
                                          const RowExtremes<F>& extremes) {
  switch (args.rule) {
    case Rule::label: return args.labels[row];
    case Rule::least_likely: return extremes.smallest;
    case Rule::random: return random_class(stream, static_cast<uint64_t>(row), args.classes, extremes.largest);
    default: return extremes.largest;
  }
}

template <class T, class F = compute_t<T>>
FASTADV_HOST_DEVICE void entropy_row(const T* z, T* dz, int64_t classes, const RowExtremes<F>& extremes) {
  double total = 0, weighted = 0;  // of e_j, of e_j * shifted_j
  for (int64_t j = 0; j < classes; ++j) {
    const F shifted = load(z[j]) - extremes.maximum, e = std::exp(shifted);
    total += e;
    weighted += e > F(0) ? e * shifted : F(0);
  }
  const F sum = static_cast<F>(total), log_sum = static_cast<F>(std::log(total));
  const F entropy = static_cast<F>(std::log(total) - weighted / total);
  for (int64_t j = 0; j < classes; ++j) {
    const F shifted = load(z[j]) - extremes.maximum;
    store(dz[j], entropy_grad(std::exp(shifted), shifted, sum, log_sum, entropy));
  }
}

}  // namespace

void target_grad(const TargetGrad& args, int64_t begin, int64_t end) {
  const Stream stream = resolved(args.stream);
  with_type(args.dtype, [&](auto type) {
    using T = decltype(type);
    using F = compute_t<T>;
    for (int64_t row = begin; row < end; ++row) {
      const T* z = static_cast<const T*>(args.logits) + row * args.classes;  // [K]
      T* dz = static_cast<T*>(args.dlogits) + row * args.classes;            // [K]
      const RowExtremes<F> extremes = row_extremes(z, args.classes);
      const int64_t target = choose_target(args, stream, row, extremes);
      args.target[row] = target;
      if (args.rule == Rule::entropy) {
        entropy_row(z, dz, args.classes, extremes);
        continue;
      }
      const RowSums<F> sums = row_sums(z, args.classes, target, extremes.maximum);
      cross_entropy_row(z, dz, args.classes, target, extremes.maximum, sums, F(1), F(args.label_smoothing));
    }
  });
}

}  // namespace fastadv::cpu::FASTADV_ISA
