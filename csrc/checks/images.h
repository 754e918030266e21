// How kernels walk a batch of images [N, C, ...], and the constants of its channels.
#pragma once

#include <vector>

#include "tensors.h"

namespace fastadv::checks {

// One number or one per channel of adv, as a table over the channels that the kernels see.
inline Space space(const char* op, const Tensor& adv, const std::vector<double>& std, const std::vector<double>& lower,
                   const std::vector<double>& upper) {
  value(!std.empty() && std.size() == lower.size() && std.size() == upper.size(), op,
        "std, lower and upper must have one length, got ", std.size(), ", ", lower.size(), ", ", upper.size());
  value(std.size() <= kMaxChannels, op, "at most ", kMaxChannels, " channels can have constants of their own, got ",
        std.size());
  value(std.size() == 1 || (adv.dim() >= 2 && adv.size(1) == static_cast<int64_t>(std.size())), op, "a space of ",
        std.size(), " channels needs images [N, ", std.size(), ", ...], got ", shape(adv),
        adv.dim() == 3 ? "; make a batch of a single image by images[None]" : "");
  Space result{};
  result.shared = std.size() == 1;
  for (size_t c = 0; c < std.size(); ++c) {
    value(std[c] > 0, op, "std must be positive, got ", std[c]);
    result.std[c] = std[c];
    result.lower[c] = lower[c];
    result.upper[c] = upper[c];
  }
  return result;
}

// How the kernels walk adv [N, C, ...]. Channels that share their constants are merged into one, unless the
// kernel needs each.
inline Batch batch(const Tensor& adv, bool channels_last, bool one_channel) {
  const int64_t examples = adv.size(0), elements = examples == 0 ? 0 : adv.numel() / examples;
  const int64_t channels = one_channel || adv.dim() < 2 || elements == 0 ? 1 : adv.size(1);
  return {examples, channels, elements / channels, channels_last && channels > 1};
}

inline bool channels_last(const char* op, const char* what, const Tensor& images) {
  value(images.dim() >= 1, op, what, " must have a batch dimension: shape [N, ...], got a scalar");
  if (dense(images, false)) return false;
  value(images.dim() >= 3 && dense(images, true), op, what, " must be contiguous or channels_last");
  return true;
}

}  // namespace fastadv::checks
