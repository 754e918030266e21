// The loss of each row of logits.
#include "../ops/row_losses.h"

#include "../math/log_odds.h"
#include "margin_rows.h"

namespace fastadv::cpu::FASTADV_ISA {
namespace {

template <class T, class F = compute_t<T>>
FASTADV_HOST_DEVICE F log_odds_of_row(const T* z, int64_t classes, int64_t label) {
  F largest = static_cast<F>(-INFINITY);
  for (int64_t j = 0; j < classes; ++j)
    if (j != label && load(z[j]) > largest) largest = load(z[j]);
  const F origin = origin_or_zero(largest);
  double others = 0;  // over 20,000 classes a float sum would lose three digits
  for (int64_t j = 0; j < classes; ++j)
    if (j != label) others += std::exp(load(z[j]) - origin);
  return log_odds(origin, static_cast<F>(others), load(z[label]));
}

template <class T, class F = compute_t<T>>
FASTADV_HOST_DEVICE F margin_loss_of_row(const T* z, const RowLosses& args, int64_t label, int64_t target) {
  const Ranking<F> ranking = ranking_of(z, args.classes);
  return static_cast<F>(loss_of(margin_of_row(z, args.margin, ranking, label, target), ranking));
}

}  // namespace

void row_losses(const RowLosses& args, int64_t begin, int64_t end) {
  with_type(args.dtype, [&](auto type) {
    using T = decltype(type);
    using F = compute_t<T>;
    F* losses = static_cast<F*>(args.losses);  // [N]
    for (int64_t i = begin; i < end; ++i) {
      const T* z = static_cast<const T*>(args.logits) + i * args.classes;  // [K]
      const int64_t label = args.labels[i], target = args.targets == nullptr ? label : args.targets[i];
      if (args.loss == RowLoss::margin) {
        losses[i] = margin_loss_of_row(z, args, label, target);
      } else {
        const F odds = log_odds_of_row(z, args.classes, label);
        losses[i] = args.loss == RowLoss::log_odds ? odds : cross_entropy_of(odds);
      }
    }
  });
}

}  // namespace fastadv::cpu::FASTADV_ISA
