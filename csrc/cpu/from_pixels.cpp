// images <- the model's input for pixels: a byte read, its value looked up, an element written. Each range of examples
// makes its own table, a few hundred divisions, which stays in the first cache.
#include "../math/from_pixels.h"

#include "../ops/from_pixels.h"
#include "element.h"

namespace fastadv::cpu::FASTADV_ISA {
namespace {

// One row of `width` places; a place holds a value of each channel where they are interleaved, else one. The channels'
// tables lie `apart`. kChannels: their number, 0 where it is not known before.
template <int kChannels, class T>
FASTADV_HOST_DEVICE void row(const uint8_t* __restrict pixels, T* __restrict images, const T* __restrict table,
                             int64_t width, int64_t interleaved, int64_t apart, bool mirrored) {
  const int64_t channels = kChannels > 0 ? kChannels : interleaved, step = mirrored ? -channels : channels;
  if (mirrored) pixels += (width - 1) * channels;
  for (int64_t x = 0; x < width; ++x, pixels += step, images += channels)
    for (int64_t c = 0; c < channels; ++c) images[c] = table[c * apart + pixels[c]];
}

}  // namespace

void from_pixels(const FromPixels& args, int64_t begin, int64_t end) {
  const Batch& batch = args.batch;
  const int64_t interleaved = batch.channels_last ? batch.channels : 1, planes = batch.channels / interleaved;
  const int64_t row_elements = args.width * interleaved, rows = batch.plane / args.width;
  const int64_t apart = args.space.shared ? 0 : kLevels;
  with_type(args.dtype, [&](auto type) {
    using T = decltype(type);
    T table[kMaxChannels * kLevels];  // [C or 1, 256]
    for (int64_t i = 0; i < tables(args) * kLevels; ++i)
      store(table[i], input_of<compute_t<T>>(args, i / kLevels, static_cast<int>(i % kLevels)));
    const uint8_t* pixels = args.pixels + begin * batch.channels * batch.plane;
    T* images = static_cast<T*>(args.images) + begin * batch.channels * batch.plane;
    for (int64_t example = begin; example < end; ++example) {
      const bool mirrored = args.mirrored != nullptr && args.mirrored[example] != 0;
      for (int64_t channel = 0; channel < planes; ++channel) {
        for (int64_t y = 0; y < rows; ++y, pixels += row_elements, images += row_elements) {
          if (interleaved == 1) row<1>(pixels, images, table + channel * apart, args.width, 1, apart, mirrored);
          else if (interleaved == 3) row<3>(pixels, images, table, args.width, 3, apart, mirrored);
          else row<0>(pixels, images, table, args.width, interleaved, apart, mirrored);
        }
      }
    }
  });
}

}  // namespace fastadv::cpu::FASTADV_ISA
