// The loss of TRADES and its derivatives: each row's share of the mean, and the derivatives times their weights.
#include "../ops/trades_loss.h"

#include "pair_of_rows.h"

namespace fastadv::cpu::FASTADV_ISA {
namespace {

// Writes the derivatives dz and dz_adv [K]; returns the row's loss times weight.
template <class T, class F = compute_t<T>>
FASTADV_HOST_DEVICE F trades_row(const PairOfRows<T>& row, F* dz, F* dz_adv, int64_t target, F weight, F weight_of_kl,
                                 Smoothing<F> smoothing) {
  double others = 0, adv_sum = 0, differences = 0;
  double shifts = 0, shifted_sum = 0;  // of e_j d_j, of z_j - max z
  // The exponentials and their differences stay where the derivatives go.
  for (int64_t j = 0; j < row.classes; ++j) {
    const PairOfExp<F> e = row.at(j);
    dz[j] = e.clean;
    dz_adv[j] = difference(e);
    if (j != target) others += e.clean;
    adv_sum += e.adv;
    differences += dz_adv[j];
    shifts += kl_mean_term(e.clean, row.shift(j));
    shifted_sum += row.shifted(j);
  }
  const F clean_sum = static_cast<F>(others + dz[target]), of_others = static_cast<F>(others);
  const F total = static_cast<F>(differences), log_ratio = log_ratio_of_sums(clean_sum, static_cast<F>(adv_sum), total);
  const F clean_inverse = F(1) / clean_sum, adv_inverse = F(1) / static_cast<F>(adv_sum);
  const F mean = static_cast<F>(shifts) * clean_inverse;
  double divergence = 0;
  for (int64_t j = 0; j < row.classes; ++j) {
    const F p = dz[j] * clean_inverse, of_adv = kl_grad_adv(dz_adv[j], p, total, adv_inverse);
    const F of_cross_entropy = j == target ? cross_entropy_grad_target(of_others, clean_inverse, smoothing)
                                           : cross_entropy_grad_other(dz[j], clean_inverse, smoothing);
    divergence += kl_term(p, of_adv, row.log_ratio(j) - log_ratio);
    dz[j] = weight * of_cross_entropy + weight_of_kl * kl_grad_clean(p, row.shift(j), mean);
    dz_adv[j] = weight_of_kl * of_adv;
  }
  const F mean_shifted = static_cast<F>(shifted_sum / static_cast<double>(row.classes));
  return weight * cross_entropy(std::log(clean_sum), row.shifted(target), mean_shifted, smoothing) +
         weight_of_kl * static_cast<F>(divergence);
}

}  // namespace

void trades_loss(const TradesLoss& args, int64_t begin, int64_t end) {
  with_type(args.dtype, [&](auto type) {
    using T = decltype(type);
    using F = compute_t<T>;
    const Smoothing<F> smoothing = smoothing_of(static_cast<F>(args.label_smoothing), args.classes);
    const F weight = static_cast<F>(args.weight), weight_of_kl = static_cast<F>(args.beta * args.weight);
    for (int64_t i = begin; i < end; ++i) {
      const int64_t first = i * args.classes;
      const PairOfRows<T> row(static_cast<const T*>(args.logits) + first,
                              static_cast<const T*>(args.adv_logits) + first, args.classes);
      static_cast<F*>(args.row_loss)[i] =
          trades_row(row, static_cast<F*>(args.dlogits) + first, static_cast<F*>(args.dadv_logits) + first,
                     args.labels[i], weight, weight_of_kl, smoothing);
    }
  });
}

}  // namespace fastadv::cpu::FASTADV_ISA
