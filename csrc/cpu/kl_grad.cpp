// The derivative of each row's divergence with respect to the adversarial logits, scaled by a power of two.
#include "../ops/kl_grad.h"

#include "pair_of_rows.h"

namespace fastadv::cpu::FASTADV_ISA {
namespace {

// One pair of rows, its derivative to be written to dz.
template <class T>
struct Row : PairOfRows<T> {
  using F = compute_t<T>;
  using PairOfRows<T>::at;
  using PairOfRows<T>::classes;
  using PairOfRows<T>::top;
  using PairOfRows<T>::tops;
  T* dz;  // [K]

  Row(const T* clean, const T* adv, T* derivative, int64_t count) : PairOfRows<T>(clean, adv, count), dz(derivative) {}

  // The next two write the derivative and return its exponent.

  int32_t kl_grad() const {
    double clean_others = 0, adv_others = 0, differences = 0;
    for (int64_t j = 0; j < classes; ++j) {
      const PairOfExp<F> e = at(j);
      differences += difference(e);
      if (j == top) continue;
      clean_others += e.clean;
      adv_others += e.adv;
    }
    const PairOfExp<F> of_top = at(top);
    const F clean_sum = static_cast<F>(clean_others + of_top.clean), adv_sum = static_cast<F>(adv_others + of_top.adv);
    if (is_certain(clean_sum, static_cast<F>(clean_others)) && is_certain(adv_sum, static_cast<F>(adv_others)))
      return certain();
    const F clean_inverse = F(1) / clean_sum, adv_inverse = F(1) / adv_sum, total = static_cast<F>(differences);
    const auto grad = [&](int64_t j) {
      const PairOfExp<F> e = at(j);
      return kl_grad_adv(difference(e), e.clean * clean_inverse, total, adv_inverse);
    };
    return store_scaled(grad, total, 0);
  }

  // Both rows are certain of the same class: both sums are 1, and the other classes' exponentials may vanish.
  int32_t certain() const {
    F largest_other = -INFINITY;
    for (int64_t j = 0; j < classes; ++j) {
      if (j == top) continue;
      const F clean = load(this->clean[j]) - tops.clean, adv = load(this->adv[j]) - tops.adv;
      if (clean > largest_other) largest_other = clean;
      if (adv > largest_other) largest_other = adv;
    }
    const Origin<F> origin = origin_of_others(F(0), largest_other);
    double total = 0;
    for (int64_t j = 0; j < classes; ++j) total += j == top ? F(0) : difference(at(j, origin.value));
    const F of_top = static_cast<F>(-total);
    return store_scaled([&](int64_t j) { return j == top ? of_top : difference(at(j, origin.value)); }, of_top,
                        origin.exponent);
  }

  // `whole` is NaN if the row is.
  template <class Grad>
  int32_t store_scaled(Grad grad, F whole, int32_t exponent_of_origin) const {
    F largest = 0;
    for (int64_t j = 0; j < classes; ++j) {
      const F magnitude = std::fabs(grad(j));
      if (magnitude > largest) largest = magnitude;
    }
    const Scale<F> scale = scale_of(whole == whole ? largest : whole, exponent_of_origin);
    for (int64_t j = 0; j < classes; ++j) store(dz[j], scale.factor * grad(j));
    return scale.exponent;
  }
};

}  // namespace

void kl_grad(const KlGrad& args, int64_t begin, int64_t end) {
  with_type(args.dtype, [&](auto type) {
    using T = decltype(type);
    for (int64_t i = begin; i < end; ++i) {
      const int64_t first = i * args.classes;
      const Row<T> row(static_cast<const T*>(args.clean_logits) + first, static_cast<const T*>(args.logits) + first,
                       static_cast<T*>(args.dlogits) + first, args.classes);
      args.exponent[i] = row.kl_grad();
    }
  });
}

}  // namespace fastadv::cpu::FASTADV_ISA
