// The target of each row of logits and the derivative of its cost, in three passes over a row that stays in cache.
#include "../ops/target_grad.h"

#include "../math/noise.h"
#include "row.h"

namespace fastadv::cpu::FASTADV_ISA {
namespace {

template <class F>
FASTADV_HOST_DEVICE int64_t choose_target(const TargetGrad& args, const RngState& rng_state, int64_t row,
                                          const RowExtremes<F>& extremes) {
  switch (args.rule) {
    case Rule::label: return args.labels[row];
    case Rule::least_likely: return extremes.smallest;
    case Rule::random: return random_class(rng_state, static_cast<uint64_t>(row), args.classes, extremes.largest);
    default: return extremes.largest;
  }
}

// One row of K classes, its derivative to be written to dz.
template <class T>
struct Row {
  using F = compute_t<T>;
  const T* z;  // [K]
  T* dz;       // [K]
  int64_t classes;
  bool scaled;

  F shifted(int64_t j, F origin) const { return load(z[j]) - origin; }

  // The origin for classes below the maximum whose exponentials vanish.
  Origin<F> origin_below(F maximum) const {
    F largest = -INFINITY;
    for (int64_t j = 0; j < classes; ++j)
      if (load(z[j]) < maximum && load(z[j]) > largest) largest = load(z[j]);
    return origin_of_others(maximum, largest);
  }

  F ties(F maximum) const {
    int64_t count = 0;
    for (int64_t j = 0; j < classes; ++j) count += load(z[j]) == maximum;
    return static_cast<F>(count);
  }

  // The largest |grad(j)| of all classes; NaN is passed over.
  template <class Grad>
  F largest(Grad grad) const {
    F result = 0;
    for (int64_t j = 0; j < classes; ++j) {
      const F magnitude = std::fabs(grad(j));
      if (magnitude > result) result = magnitude;
    }
    return result;
  }

  // The next two write the derivative and return its exponent.

  int32_t cross_entropy(int64_t target, F maximum, Smoothing<F> smoothing) const {
    RowSums<F> sums = row_sums(z, classes, target, maximum);
    Origin<F> origin{maximum, 0};
    if (scaled && smoothing.target == F(0) && is_certain(sums.sum, sums.others)) {
      origin = origin_below(maximum);
      sums.others = row_sums(z, classes, target, origin.value).others;
    }
    Scale<F> scale{F(1), 0};
    if (scaled) scale = scale_of(largest_cross_entropy_grad(target, maximum, sums, smoothing), origin.exponent);
    cross_entropy_row(z, dz, classes, target, origin.value, sums, scale.factor, smoothing);
    return scale.exponent;
  }

  F largest_cross_entropy_grad(int64_t target, F maximum, const RowSums<F>& sums, Smoothing<F> smoothing) const {
    const F inverse_sum = F(1) / sums.sum, of_target = cross_entropy_grad_target(sums.others, inverse_sum, smoothing);
    if (smoothing.target == F(0) || of_target != of_target) return std::fabs(of_target);  // minus the sum of the others
    return largest([&](int64_t j) {
      return j == target ? of_target : cross_entropy_grad_other(std::exp(shifted(j, maximum)), inverse_sum, smoothing);
    });
  }

  int32_t entropy(F maximum) const {
    double total = 0, weighted = 0;  // of e_j, of e_j * shifted_j
    for (int64_t j = 0; j < classes; ++j) {
      const F s = shifted(j, maximum), e = std::exp(s);
      total += e;
      weighted += entropy_term(e, s);
    }
    const F sum = static_cast<F>(total), inverse_sum = F(1) / sum, mean = static_cast<F>(weighted / total);
    if (scaled && static_cast<F>(-weighted) < kLeastOfOthers<F> && sum == ties(maximum))
      return entropy_beside_ties(maximum, sum);
    const auto grad = [&](int64_t j) {
      const F s = shifted(j, maximum);
      return entropy_grad(std::exp(s), s, inverse_sum, mean);
    };
    const Scale<F> scale = !scaled ? Scale<F>{F(1), 0} : scale_of(sum == sum ? largest(grad) : sum, 0);
    for (int64_t j = 0; j < classes; ++j) store(dz[j], scale.factor * grad(j));
    return scale.exponent;
  }

  int32_t entropy_beside_ties(F maximum, F ties) const {
    const Origin<F> origin = origin_below(maximum);
    const auto grad = [&](int64_t j) {
      return load(z[j]) == maximum
                 ? F(0)
                 : entropy_grad_beside_ties(std::exp(shifted(j, origin.value)), shifted(j, maximum), ties);
    };
    double total = 0;
    for (int64_t j = 0; j < classes; ++j) total += grad(j);
    const F of_tie = static_cast<F>(-total) / ties;
    const F most = largest(grad), tied = std::fabs(of_tie);
    const Scale<F> scale = scale_of(tied > most ? tied : most, origin.exponent);
    for (int64_t j = 0; j < classes; ++j) store(dz[j], scale.factor * (load(z[j]) == maximum ? of_tie : grad(j)));
    return scale.exponent;
  }
};

}  // namespace

void target_grad(const TargetGrad& args, int64_t begin, int64_t end) {
  const RngState rng_state = resolved(args.rng_state);
  with_type(args.dtype, [&](auto type) {
    using T = decltype(type);
    using F = compute_t<T>;
    const Smoothing<F> smoothing = smoothing_of(F(args.label_smoothing), args.classes);
    for (int64_t i = begin; i < end; ++i) {
      const int64_t first = i * args.classes;
      const Row<T> row{static_cast<const T*>(args.logits) + first, static_cast<T*>(args.dlogits) + first, args.classes,
                       args.exponent != nullptr};
      const RowExtremes<F> extremes = row_extremes(row.z, args.classes);
      const int64_t target = choose_target(args, rng_state, i, extremes);
      args.target[i] = target;
      const int32_t exponent = args.rule == Rule::entropy ? row.entropy(extremes.maximum)
                                                          : row.cross_entropy(target, extremes.maximum, smoothing);
      if (args.exponent != nullptr) args.exponent[i] = exponent;
    }
  });
}

}  // namespace fastadv::cpu::FASTADV_ISA
