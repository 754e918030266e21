// The arithmetic of one element of a step: section 2.2 of the paper, in the model's own input.
#pragma once

#include "macros.h"

namespace fastadv {

// Constants of one channel of one example, in the model's input: pixel values divided by the channel's std.
template <class F>
struct Bounds {
  F alpha, eps, lower, upper;
};

// alpha * sign(gradient). sign(NaN) = 0, so that a gradient that is not a number leaves the pixel where it is.
template <class F>
FASTADV_HOST_DEVICE F signed_alpha(F alpha, F gradient) {
  return gradient > F(0) ? alpha : gradient < F(0) ? -alpha : F(0);
}

template <class F>
FASTADV_HOST_DEVICE F clamp(F value, F lower, F upper) {
  value = value < lower ? lower : value;
  return value > upper ? upper : value;
}

// Clip_{clean, eps} of section 2.1, then the pixel range.
template <class F>
FASTADV_HOST_DEVICE F clip(F moved, F clean, F eps, F lower, F upper) {
  return clamp(clamp(moved, clean - eps, clean + eps), lower, upper);
}

template <class F>
FASTADV_HOST_DEVICE F sign_step(F adv, F clean, F gradient, Bounds<F> bounds) {
  return clip(adv + signed_alpha(bounds.alpha, gradient), clean, bounds.eps, bounds.lower, bounds.upper);
}

// The same where adv is clean itself: to clip where the step leads is to clip how long it is, and rounding keeps that
// order, so the result is the same bit for bit.
template <class F>
FASTADV_HOST_DEVICE F first_sign_step(F clean, F gradient, Bounds<F> bounds) {
  const F alpha = clamp(bounds.alpha, -bounds.eps, bounds.eps);
  return clamp(clean + signed_alpha(alpha, gradient), bounds.lower, bounds.upper);
}

}  // namespace fastadv
