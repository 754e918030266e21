// Losses of the margin between two classes of one row of logits z, and their derivatives in closed form. They are
// invariant to the logits' scale (DLR) or linear in them, and so do not vanish for a confident network.
//
// With z_1 >= z_2 >= ... the logits in order, y the label and t the target or, where there is none, the largest of the
// other classes:
//
//   margin        z_t - z_y
//   dlr           (z_t - z_y) / (z_1 - z_3)                (Croce & Hein, 2020, equation 6)
//   targeted_dlr  (z_t - z_y) / (z_1 - (z_3 + z_4) / 2)    (equation 7)
//
// The authors add 1e-12 to the denominators. Everything is in double, where differences of floats hardly round: where
// the derivative's terms cancel, as they do if y is third and the loss is 1 whatever the logits, nothing is left of
// them but that offset.
#pragma once

#include <cmath>
#include <cstdint>

#include "logit_grad.h"

namespace fastadv {

enum class MarginLoss { margin, dlr, targeted_dlr };

// Classes whose order or place the loss asks for.
FASTADV_HOST_DEVICE int64_t classes_needed(MarginLoss loss) {
  return loss == MarginLoss::margin ? 2 : loss == MarginLoss::dlr ? 3 : 4;
}

constexpr int32_t kNoClass = INT32_MAX;

template <class F>
struct Ranked {
  F value;
  int32_t index;
};

// The larger comes first, and of equal ones that of the lower class. NaN comes before all, so that it is not
// overlooked.
template <class F>
FASTADV_HOST_DEVICE bool comes_before(Ranked<F> a, Ranked<F> b) {
  return a.value > b.value || (a.value == b.value && a.index < b.index) || (a.value != a.value && b.value == b.value);
}

// The first four of the classes seen so far.
constexpr int kPlaces = 4;
template <class F>
struct Ranking {
  Ranked<F> place[kPlaces];
};

template <class F>
FASTADV_HOST_DEVICE Ranking<F> empty_ranking() {
  const Ranked<F> none{static_cast<F>(-INFINITY), kNoClass};
  return {{none, none, none, none}};
}

template <class F>
FASTADV_HOST_DEVICE void insert(Ranking<F>& ranking, Ranked<F> seen) {
  if (!comes_before(seen, ranking.place[kPlaces - 1])) return;
  for (int k = 0; k < kPlaces; ++k) {
    const Ranked<F> there = ranking.place[k];
    const bool before = comes_before(seen, there);
    ranking.place[k] = before ? seen : there;
    seen = before ? there : seen;
  }
}

// The loss as -gap / spread, and the classes that it depends on.
struct Margin {
  double gap, spread;  // z_y - z_t, and the denominator without its offset
  double offset;
  int32_t label, target, first, low[2];
};

template <class F>
FASTADV_HOST_DEVICE Margin margin_of(MarginLoss loss, const Ranking<F>& ranking, Ranked<F> label, Ranked<F> given) {
  const Ranked<F>* place = ranking.place;
  const Ranked<F> target = loss == MarginLoss::targeted_dlr ? given
                           : place[0].index == label.index  ? place[1]
                                                            : place[0];
  Margin margin{static_cast<double>(label.value) - static_cast<double>(target.value),
                1.0,
                0.0,
                label.index,
                target.index,
                kNoClass,
                {kNoClass, kNoClass}};
  if (loss == MarginLoss::margin) return margin;
  const Ranked<F> third = place[2], fourth = loss == MarginLoss::dlr ? third : place[3];
  const double first = static_cast<double>(place[0].value);
  margin.spread = 0.5 * ((first - static_cast<double>(third.value)) + (first - static_cast<double>(fourth.value)));
  margin.offset = 1e-12;
  margin.first = place[0].index;
  margin.low[0] = third.index;
  margin.low[1] = fourth.index;
  return margin;
}

// NaN where a logit is NaN or infinite.
template <class F>
FASTADV_HOST_DEVICE double loss_of(const Margin& margin, const Ranking<F>& ranking) {
  return ranking.place[0].value < INFINITY ? -margin.gap / (margin.spread + margin.offset) : NAN;
}

// d loss / d z_j times the square of the denominator.
FASTADV_HOST_DEVICE double margin_numerator(const Margin& margin, int32_t j) {
  const double of_gap = static_cast<double>(j == margin.label) - static_cast<double>(j == margin.target);
  const double of_spread = static_cast<double>(j == margin.first) - 0.5 * static_cast<double>(j == margin.low[0]) -
                           0.5 * static_cast<double>(j == margin.low[1]);
  return (of_spread * margin.gap - of_gap * margin.spread) - of_gap * margin.offset;
}

// The derivative of a row: zero but for a few classes, or NaN for all if a logit that the loss takes is not finite.
template <class F>
struct SparseRow {
  static constexpr int kEntries = 5;
  int32_t index[kEntries];  // a class may be there twice, or kNoClass
  F value[kEntries], elsewhere;
  int32_t exponent;
};

template <class F>
FASTADV_HOST_DEVICE F entry(const SparseRow<F>& row, int32_t j) {
  F result = row.elsewhere;
  for (int k = 0; k < SparseRow<F>::kEntries; ++k) result = j == row.index[k] ? row.value[k] : result;
  return result;
}

// The derivative, or if it is scaled, the derivative divided by 2^exponent.
template <class F>
FASTADV_HOST_DEVICE SparseRow<F> margin_grad(const Margin& margin, bool scaled) {
  const double inverse = 1.0 / (margin.spread + margin.offset);
  const bool finite = margin.gap - margin.gap == 0.0 && margin.spread - margin.spread == 0.0;
  SparseRow<F> row{{margin.label, margin.target, margin.first, margin.low[0], margin.low[1]}, {}, F(0), 0};
  double grad[SparseRow<F>::kEntries], largest = 0.0;
  for (int k = 0; k < SparseRow<F>::kEntries; ++k) {
    grad[k] = row.index[k] == kNoClass ? 0.0 : margin_numerator(margin, row.index[k]) * inverse * inverse;
    const double magnitude = std::fabs(grad[k]);
    if (magnitude > largest) largest = magnitude;
  }
  const F nan = static_cast<F>(NAN);
  const Scale<double> scale = scaled && finite ? scale_of(largest, 0) : Scale<double>{1.0, 0};
  for (int k = 0; k < SparseRow<F>::kEntries; ++k) row.value[k] = finite ? static_cast<F>(scale.factor * grad[k]) : nan;
  row.elsewhere = finite ? F(0) : nan;
  row.exponent = scale.exponent;
  return row;
}

}  // namespace fastadv
