// The arithmetic of APGD's step with momentum (Croce & Hein, 2020, Algorithm 1): z is where the step leads, projected;
// the image then moves by a part of that step and the rest of its previous one, and is projected again.
#pragma once

#include "normalized_step.h"
#include "sign_step.h"

namespace fastadv {

// The weights of the step and of the previous one; their sum is 1.
template <class F>
struct Momentum {
  F step, previous;
};

template <class F>
FASTADV_HOST_DEVICE Momentum<F> momentum_of(double momentum) {
  return {static_cast<F>(momentum), static_cast<F>(1.0 - momentum)};
}

template <class F>
FASTADV_HOST_DEVICE F with_momentum(F adv, F previous, F z, Momentum<F> weight) {
  return adv + weight.step * (z - adv) + weight.previous * (adv - previous);
}

template <class F>
FASTADV_HOST_DEVICE F apgd_sign_step(F adv, F previous, F clean, F gradient, Bounds<F> bounds, Momentum<F> weight) {
  const F z = sign_step(adv, clean, gradient, bounds);
  return clip(with_momentum(adv, previous, z, weight), clean, bounds.eps, bounds.lower, bounds.upper);
}

// Factors of an example for the step in the L2 ball: the inverse of the gradient's length, and what brings z back onto
// the ball.
struct UnitStep {
  double inverse_length, shrink;
};

// Where the step in the L2 ball leads, before the second projection; bounds.alpha is in the model's input.
template <class F>
FASTADV_HOST_DEVICE F apgd_unit_move(F adv, F previous, F clean, F gradient, double inverse_std, Bounds<F> bounds,
                                     UnitStep example, Momentum<F> weight) {
  const F there = moved(adv, gradient, inverse_std, bounds.alpha, example.inverse_length);
  const F z = clamp(shrunk(there, clean, example.shrink), bounds.lower, bounds.upper);
  return with_momentum(adv, previous, z, weight);
}

}  // namespace fastadv
