#include "kl_grad.h"

#include "../checks/logits.h"
#include "backends.h"

namespace fastadv {

// d KL(softmax(clean_logits) || softmax(logits)) / d logits = dlogits * 2^exponent, exponent [N] int32, by which the
// largest of a row is in [0.5, 1).
STABLE_TORCH_LIBRARY_FRAGMENT(fastadv, m) {
  m.def("scaled_kl_grad(Tensor logits, Tensor clean_logits) -> (Tensor dlogits, Tensor exponent)");
}

namespace {

void run(Cpu, const char*, const Tensor&, const KlGrad& args) {
  torch::stable::parallel_for(0, args.rows, row_grain(args.classes),
                              [&](int64_t begin, int64_t end) { cpu::kl_grad(args, begin, end); });
}

#ifdef FASTADV_WITH_CUDA
void run(Cuda, const char* op, const Tensor& logits, const KlGrad& args) {
  cuda::on_device_of(op, logits, [&](cudaStream_t stream) { return cuda::kl_grad(args, stream); });
}
#endif

// logits, clean_logits, dlogits [N, K]; exponent [N].
template <class Backend>
std::tuple<Tensor, Tensor> scaled_kl_grad(const Tensor& logits, const Tensor& clean_logits) {
  const char* op = "scaled_kl_grad";
  check_device(Backend{}, op);
  checks::logits(op, logits);
  const DType dtype = checks::floating(op, "logits", logits);
  checks::same_logits(op, "clean_logits", clean_logits, logits);
  const int64_t rows = logits.size(0), classes = logits.size(1);
  const Tensor dlogits = torch::stable::new_empty(logits, {rows, classes});
  const Tensor exponent = torch::stable::new_empty(logits, {rows}, torch::headeronly::ScalarType::Int);
  run(Backend{}, op, logits,
      {logits.data_ptr(), clean_logits.data_ptr(), dlogits.data_ptr(), static_cast<int32_t*>(exponent.data_ptr()),
       dtype, rows, classes});
  return {dlogits, exponent};
}

FASTADV_REGISTER(scaled_kl_grad)

}  // namespace
}  // namespace fastadv
