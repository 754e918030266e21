// The arithmetic of a step along the gradient over its norm (appendix A), in pixel values: the gradient with respect to
// a pixel is grad / std. Norms are in double, so that no gradient is too small or too large to normalise.
#pragma once

#include <cstdint>

#include "macros.h"

namespace fastadv {

// Norms of an example are taken in chunks of this many elements, added in order.
constexpr int64_t kChunk = 16384;

// Elements that are not finite count as zero; otherwise one of them would decide where all others go.
template <class F>
FASTADV_HOST_DEVICE F finite_or_zero(F value) {
  return value - value == F(0) ? value : F(0);
}

// Divisors are inverted once per channel or example. In double, the product of a finite float is finite, so the check
// is made of the factor, which is cheaper.
FASTADV_HOST_DEVICE double pixel_gradient(float grad, double inverse_std) { return finite_or_zero(grad) * inverse_std; }
FASTADV_HOST_DEVICE double pixel_gradient(double grad, double inverse_std) {
  return finite_or_zero(grad * inverse_std);
}

// Squares of float64 can leave the range of double, and are taken relative to a scale; those of float cannot.
template <class F>
constexpr bool kSquaresNeedScale = sizeof(F) == 8;

// Where a step of alpha, in the model's input, leads along a gradient of the given length.
template <class F>
FASTADV_HOST_DEVICE F moved(F adv, F grad, double inverse_std, double alpha, double inverse_length) {
  return adv + static_cast<F>(alpha * (pixel_gradient(grad, inverse_std) * inverse_length));
}

// The distance to the clean image, in pixel values.
FASTADV_HOST_DEVICE double pixel_distance(double there, double clean, double std) {
  return finite_or_zero((there - clean) * std);
}

// Of a gradient's length, or of the largest element that squares are taken relative to. A length of zero, or too
// small for double to invert, gives zero, and so a step of zero.
FASTADV_HOST_DEVICE double inverse_or_zero(double length) { return length > 0.0 ? finite_or_zero(1.0 / length) : 0.0; }

// The factor that brings a perturbation of this L2 norm back onto the ball; 1 inside it.
FASTADV_HOST_DEVICE double shrink_onto_ball(double distance, double eps) {
  // A distance whose square underflows must not pass for zero where the ball is a point.
  return eps > 0.0 ? (distance > eps ? eps / distance : 1.0) : 0.0;
}

template <class F>
FASTADV_HOST_DEVICE F shrunk(F there, F clean, double factor) {
  return factor < 1.0 ? clean + static_cast<F>(factor * static_cast<double>(there - clean)) : there;
}

}  // namespace fastadv
