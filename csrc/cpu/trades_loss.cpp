// The loss of TRADES and its derivatives: each row's share of the mean, and the derivatives times their weights.
#include "../ops/trades_loss.h"

#include "exponential.h"
#include "lanes.h"
#include "pair_of_rows.h"

namespace fastadv::cpu::FASTADV_ISA {
namespace {

// Writes the derivatives dz and dz_adv [K]; returns the row's loss times weight.
template <class T>
struct Row : PairOfRows<T> {
  using F = compute_t<T>;
  using PairOfRows<T>::classes;
  using PairOfRows<T>::tops;
  F *dz, *dz_adv;  // [K]; first the exponentials and their differences
  int64_t target;
  F shift_of_top;

  Row(const PairOfRows<T>& rows, F* derivative, F* adv_derivative, int64_t label)
      : PairOfRows<T>(rows),
        dz(derivative),
        dz_adv(adv_derivative),
        target(label),
        shift_of_top(load(rows.adv[rows.top]) - load(rows.clean[rows.top])) {}

  struct Sums {
    double others, adv, differences;  // of the exponentials but the target's, the adversarial ones, their differences
    double shifts, shifted;           // of e_j d_j, of z_j - max z
  };

  Sums exponentials() const {
    LaneSums others, adv, differences, shifts, shifted;
    in_blocks(classes, [&](int64_t first, int count) __attribute__((always_inline)) {
      const T *clean_logits = this->clean + first, *adv_logits = this->adv + first;
      F e[kLanes], e_adv[kLanes], change[kLanes], shift[kLanes], below_top[kLanes];
      for (int l = 0; l < count; ++l) {
        const F clean = load(clean_logits[l]), adv = load(adv_logits[l]), ratio = log_ratio_of(clean, adv, tops);
        const F of_clean = exp_of_negative(clean - tops.clean), of_adv = exp_of_negative(adv - tops.adv);
        const F differing = difference_from(of_adv, of_clean, ratio, expm1_of_negative(-std::fabs(ratio)));
        below_top[l] = clean - tops.clean;
        e[l] = of_clean;
        e_adv[l] = of_adv;
        change[l] = of_adv + of_clean == F(0) ? F(0) : differing;
        shift[l] = kl_mean_term(of_clean, kl_shift(clean, adv, shift_of_top));
      }
      for (int l = 0; l < count; ++l) {
        dz[first + l] = e[l];
        dz_adv[first + l] = change[l];
      }
      adv.add(e_adv, count);
      differences.add(change, count);
      shifts.add(shift, count);
      shifted.add(below_top, count);
      if (first <= target && target < first + count) e[target - first] = F(0);
      others.add(e, count);
    });
    return {others.total(), adv.total(), differences.total(), shifts.total(), shifted.total()};
  }

  F loss(F weight, F weight_of_kl, Smoothing<F> smoothing) const {
    const Sums sums = exponentials();
    const F of_others = static_cast<F>(sums.others), clean_sum = static_cast<F>(sums.others + dz[target]);
    const F total = static_cast<F>(sums.differences), adv_sum = static_cast<F>(sums.adv);
    const F log_ratio = log_ratio_of_sums(clean_sum, adv_sum, total);
    const F clean_inverse = F(1) / clean_sum, adv_inverse = F(1) / adv_sum;
    const F mean = static_cast<F>(sums.shifts) * clean_inverse, p_target = dz[target] * clean_inverse;
    LaneSums divergence;
    in_blocks(classes, [&](int64_t first, int count) __attribute__((always_inline)) {
      const T *clean_logits = this->clean + first, *adv_logits = this->adv + first;
      F* const grad = dz + first;
      F* const adv_grad = dz_adv + first;
      F terms[kLanes], of_clean[kLanes], of_adv[kLanes];
      for (int l = 0; l < count; ++l) {
        const F clean = load(clean_logits[l]), adv = load(adv_logits[l]), p = grad[l] * clean_inverse;
        of_adv[l] = kl_grad_adv(adv_grad[l], p, total, adv_inverse);
        const F delta = log_ratio_of(clean, adv, tops) - log_ratio;
        const F near = kl_term_near(p, delta), far = of_adv[l] - p * delta, term = is_near(delta) ? near : far;
        terms[l] = p == F(0) ? of_adv[l] : term;
        of_clean[l] = weight * cross_entropy_grad_other(grad[l], clean_inverse, smoothing) +
                      weight_of_kl * kl_grad_clean(p, kl_shift(clean, adv, shift_of_top), mean);
      }
      for (int l = 0; l < count; ++l) {
        grad[l] = of_clean[l];
        adv_grad[l] = weight_of_kl * of_adv[l];
      }
      divergence.add(terms, count);
    });
    dz[target] = weight * cross_entropy_grad_target(of_others, clean_inverse, smoothing) +
                 weight_of_kl * kl_grad_clean(p_target, this->shift(target), mean);
    const F mean_shifted = static_cast<F>(sums.shifted / static_cast<double>(classes));
    return weight * cross_entropy(std::log(clean_sum), this->shifted(target), mean_shifted, smoothing) +
           weight_of_kl * static_cast<F>(divergence.total());
  }
};

}  // namespace

void trades_loss(const TradesLoss& args, int64_t begin, int64_t end) {
  with_type(args.dtype, [&](auto type) {
    using T = decltype(type);
    using F = compute_t<T>;
    const Smoothing<F> smoothing = smoothing_of(static_cast<F>(args.label_smoothing), args.classes);
    const F weight = static_cast<F>(args.weight), weight_of_kl = static_cast<F>(args.beta * args.weight);
    for (int64_t i = begin; i < end; ++i) {
      const int64_t first = i * args.classes;
      const PairOfRows<T> rows(static_cast<const T*>(args.logits) + first,
                               static_cast<const T*>(args.adv_logits) + first, args.classes);
      const Row<T> row(rows, static_cast<F*>(args.dlogits) + first, static_cast<F*>(args.dadv_logits) + first,
                       args.labels[i]);
      static_cast<F*>(args.row_loss)[i] = row.loss(weight, weight_of_kl, smoothing);
    }
  });
}

}  // namespace fastadv::cpu::FASTADV_ISA
