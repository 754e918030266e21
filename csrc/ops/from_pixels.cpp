#include "from_pixels.h"

#include <algorithm>

#include "../checks/images.h"
#include "backends.h"

namespace fastadv {

// images <- clamp_range((pixels - mean) / std), of pixels in uint8; the examples that mirrored [N] names are flipped
// along their last dimension.
STABLE_TORCH_LIBRARY_FRAGMENT(fastadv, m) {
  m.def(
      "from_pixels_(Tensor(a!) images, Tensor pixels, Tensor? mirrored, float[] mean, float[] std, float[] lower, "
      "float[] upper) -> ()");
}

namespace checks {
namespace {

// mirrored [N], images [N, C, ..., W].
void mirrored(const char* op, const Tensor& mirrored, const Tensor& images) {
  const ScalarType flags = mirrored.scalar_type();
  type(flags == ScalarType::Bool || flags == ScalarType::Byte, op, "mirrored must be bool or uint8, got ", name(flags));
  same_device(op, "mirrored", mirrored, images);
  value(mirrored.dim() == 1 && mirrored.size(0) == images.size(0) && mirrored.is_contiguous(), op,
        "mirrored must be a contiguous tensor of shape [", images.size(0), "], got shape ", shape(mirrored));
  value(!overlap(mirrored, images), op, "mirrored must not share memory with images");
  value(images.dim() >= 3, op, "mirrored needs images [N, C, ..., W], got ", shape(images));
}

// images, pixels [N, C, ...]; mirrored [N] or none.
FromPixels from_pixels(const char* op, const Tensor& images, const Tensor& pixels,
                       const std::optional<Tensor>& mirrored, const std::vector<double>& mean,
                       const std::vector<double>& std, const std::vector<double>& lower,
                       const std::vector<double>& upper) {
  const DType dtype = floating(op, "images", images);
  type(pixels.scalar_type() == ScalarType::Byte, op, "pixels must be uint8, got ", name(pixels.scalar_type()));
  same_device(op, "pixels", pixels, images);
  value(shape(pixels) == shape(images), op, "pixels must have the shape of images ", shape(images), ", got ",
        shape(pixels));
  const bool last = channels_last(op, "images", images);
  value(dense(pixels, last), op, "pixels must have the strides of images");
  value(!overlap(pixels, images), op, "pixels must not share memory with images");
  if (mirrored.has_value()) checks::mirrored(op, *mirrored, images);
  const Space constants = space(op, images, std, lower, upper);
  value(mean.size() == std.size(), op, "mean must have std's length ", std.size(), ", got ", mean.size());
  const Batch walked = batch(images, last, constants.shared && !last);
  const int64_t width = images.dim() >= 3 ? images.size(images.dim() - 1) : walked.plane;
  FromPixels args{static_cast<const uint8_t*>(pixels.data_ptr()),
                  mirrored.has_value() ? static_cast<const uint8_t*>(mirrored->data_ptr()) : nullptr,
                  images.data_ptr(),
                  dtype,
                  walked,
                  width > 0 ? width : 1,
                  {},
                  constants};
  std::copy(mean.begin(), mean.end(), args.mean);
  return args;
}

}  // namespace
}  // namespace checks

namespace {

void run(Cpu, const char*, const Tensor&, const FromPixels& args) {
  // One example is one thread's: a loader's threads, which make one each, do not wake others.
  torch::stable::parallel_for(0, args.batch.examples, 1 + kGrain / (1 + args.batch.channels * args.batch.plane),
                              [&](int64_t begin, int64_t end) { cpu::from_pixels(args, begin, end); });
}

#ifdef FASTADV_WITH_CUDA
void run(Cuda, const char* op, const Tensor& images, const FromPixels& args) {
  cuda::on_device_of(op, images, [&](cudaStream_t stream) { return cuda::from_pixels(args, stream); });
}
#endif

// images, pixels [N, C, ...]; mirrored [N]; mean, std, lower, upper [1] or [C].
template <class Backend>
void from_pixels_(Tensor images, const Tensor& pixels, std::optional<Tensor> mirrored, const Numbers& mean,
                  const Numbers& std, const Numbers& lower, const Numbers& upper) {
  const char* op = "from_pixels_";
  run(Backend{}, op, images, checks::from_pixels(op, images, pixels, mirrored, mean, std, lower, upper));
}

FASTADV_REGISTER(from_pixels_)

}  // namespace
}  // namespace fastadv
