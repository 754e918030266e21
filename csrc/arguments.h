// Arguments of several operators' kernels, already checked: plain structs, without torch. Those of a single operator
// are in its header in ops/.
#pragma once

#include <cstdint>

namespace fastadv {

enum class DType { float32, float64, bfloat16, float16 };

// The most channels with constants of their own: the structs below are passed as kernel parameters.
constexpr int kMaxChannels = 32;

// A dense batch of images as the kernels walk it: [examples, channels, plane] if contiguous, [examples, plane,
// channels] if channels_last. Where all channels share their constants it is one channel of a longer plane.
struct Batch {
  int64_t examples, channels, plane;
  bool channels_last;
};

// Constants of a PixelSpace, one for each channel or, if shared, the first for all; bounds are already rounded for the
// stored dtype.
struct Space {
  double std[kMaxChannels], lower[kMaxChannels], upper[kMaxChannels];
  bool shared;
};

// A number, times one for each example if scale is set; in pixel values.
struct PerExample {
  double value;
  const void* scale;  // [N] or null, of the compute dtype: float64 for float64 images, float32 otherwise
};

// adv is read and written; clean is null where it is adv itself, as before the first step. A step with momentum reads
// previous, and leaves adv there.
struct Step {
  void* adv;          // [N, C, ...]
  const void* clean;  // [N, C, ...] or null
  const void* grad;   // [N, C, ...]
  DType dtype;
  Batch batch;
  Space space;
  PerExample alpha, eps;
  void* previous = nullptr;  // [N, C, ...] or null
};

// Where a call's random numbers begin: row i uses example offset + i of the sequence that `seed` names. If on_device is
// set, kernels read the seed there, and a number that they add to the offset.
struct RngState {
  uint64_t seed, offset;
  const int64_t* on_device;  // [2] or null
};

}  // namespace fastadv
