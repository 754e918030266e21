// from_pixels on the CPU: rows over threads.
#include <torch/csrc/stable/library.h>

#include "steps.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace fastadv::cpu {
namespace {

using torch::stable::Tensor;
using Numbers = std::vector<double>;

// The C library gives back what is larger than 32 MB, a batch of 32 photographs, and takes new pages for the next: a
// fault for each costs more than the lookups, unless they are large.
void ask_for_large_pages(const Tensor& images) {
#if defined(MADV_HUGEPAGE)
  constexpr uintptr_t page = 4096, taken_anew = uintptr_t{32} << 20;
  const uintptr_t bytes = images.numel() * images.element_size();
  const uintptr_t begin = (reinterpret_cast<uintptr_t>(images.data_ptr()) + page - 1) / page * page;
  if (bytes > taken_anew) madvise(reinterpret_cast<void*>(begin), bytes - page, MADV_HUGEPAGE);  // or as they are
#else
  (void)images;
#endif
}

// pixels [N, C, ...]; mirrored [N]; mean, std, lower, upper [1] or [C]; returns images [N, C, ...].
Tensor from_pixels(const Tensor& pixels, std::optional<Tensor> mirrored, torch::headeronly::ScalarType dtype,
                   const Numbers& mean, const Numbers& std, const Numbers& lower, const Numbers& upper) {
  const auto [args, images] = checks::from_pixels("from_pixels", pixels, mirrored, dtype, mean, std, lower, upper);
  ask_for_large_pages(images);
  const int64_t row = args.width * (args.batch.channels_last ? args.batch.channels : 1);  // elements
  torch::stable::parallel_for(0, elements(args.batch) / row, 1 + kGrain / row,
                              [&args = args](int64_t begin, int64_t end) { kernels().from_pixels(args, begin, end); });
  return images;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(fastadv, CPU, m) { m.impl("from_pixels", TORCH_BOX(&from_pixels)); }

}  // namespace fastadv::cpu
