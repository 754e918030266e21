// The arguments of the kernels of from_pixels_.
#pragma once

#include "../arguments.h"
#include "../kernels.h"

namespace fastadv {

// images <- the model's input for pixels; rows of `width` places, the last dimension, are mirrored where `mirrored` is
// set.
struct FromPixels {
  const uint8_t* pixels;    // [N, C, ...]
  const uint8_t* mirrored;  // [N] or null: any but 0 means yes
  void* images;             // [N, C, ...]
  DType dtype;              // of the images
  Batch batch;              // channels_last: channels apart even where they share their constants
  int64_t width;
  double mean[kMaxChannels];
  Space space;
};

FASTADV_CPU_KERNEL(from_pixels, const FromPixels& args, int64_t begin, int64_t end);  // examples
FASTADV_CUDA_LAUNCHER(from_pixels, const FromPixels& args);

}  // namespace fastadv
