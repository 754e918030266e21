// The model's input for a pixel of 8 bits: one of 256 values a channel, which the kernels compute once and look up.
#pragma once

#include "../ops/from_pixels.h"
#include "macros.h"
#include "sign_step.h"

namespace fastadv {

constexpr int kLevels = 256;  // values of a pixel

// (level - mean) / std in double, rounded, within the pixel range. In half precision storing it rounds again, as torch
// converts a double; the bounds are stored exactly, so that rounding does not leave them.
template <class F>
FASTADV_HOST_DEVICE F input_of(const FromPixels& args, int64_t channel, int level) {
  const int64_t c = args.space.shared ? 0 : channel;
  const double exact = (static_cast<double>(level) - args.mean[c]) / args.space.std[c];
  return clamp(static_cast<F>(exact), static_cast<F>(args.space.lower[c]), static_cast<F>(args.space.upper[c]));
}

// How many channels have a table of their own.
FASTADV_HOST_DEVICE int64_t tables(const FromPixels& args) { return args.space.shared ? 1 : args.batch.channels; }

}  // namespace fastadv
