#include "negate.h"

#include "../checks/tensors.h"
#include "backends.h"

namespace fastadv {

// values <- -values, of any shape.
STABLE_TORCH_LIBRARY_FRAGMENT(fastadv, m) { m.def("negate_(Tensor(a!) values) -> ()"); }

namespace {

void run(Cpu, const char*, const Tensor&, const Negate& args) {
  torch::stable::parallel_for(0, args.elements, kGrain,
                              [&](int64_t begin, int64_t end) { cpu::negate(args, begin, end); });
}

#ifdef FASTADV_WITH_CUDA
void run(Cuda, const char* op, const Tensor& values, const Negate& args) {
  cuda::on_device_of(op, values, [&](cudaStream_t stream) { return cuda::negate(args, stream); });
}
#endif

// values [...].
template <class Backend>
void negate_(Tensor values) {
  const char* op = "negate_";
  const DType dtype = checks::floating(op, "values", values);
  checks::value(values.is_contiguous(), op, "values must be contiguous");
  run(Backend{}, op, values, Negate{values.data_ptr(), dtype, values.numel()});
}

FASTADV_REGISTER(negate_)

}  // namespace
}  // namespace fastadv
