#include "truncated_normal.h"

#include "../checks/eps_sample.h"
#include "backends.h"

namespace fastadv {

// eps [N] <- |N(0, sigma)| truncated to [0, upper]; row i is a function of (seed, offset + i). rng_state [2]
// is as in noise_step_.
STABLE_TORCH_LIBRARY_FRAGMENT(fastadv, m) {
  m.def("truncated_normal_(Tensor(a!) eps, float sigma, float upper, int seed, int offset, Tensor? rng_state) -> ()");
}

namespace {

constexpr int64_t kDraws = 2048;  // draws that make a thread worth waking

void run(Cpu, const char*, const Tensor&, const EpsSample& sample) {
  torch::stable::parallel_for(0, sample.examples, kDraws,
                              [&](int64_t begin, int64_t end) { cpu::truncated_normal(sample, begin, end); });
}

#ifdef FASTADV_WITH_CUDA
void run(Cuda, const char* op, const Tensor& eps, const EpsSample& sample) {
  cuda::on_device_of(op, eps, [&](cudaStream_t stream) { return cuda::truncated_normal(sample, stream); });
}
#endif

// eps [N]; rng_state [2].
template <class Backend>
void truncated_normal_(Tensor eps, double sigma, double upper, int64_t seed, int64_t offset,
                       std::optional<Tensor> rng_state) {
  const char* op = "truncated_normal_";
  run(Backend{}, op, eps, checks::eps_sample(op, eps, sigma, upper, seed, offset, rng_state));
}

FASTADV_REGISTER(truncated_normal_)

}  // namespace
}  // namespace fastadv
