// The sum of the rows' shares of a loss, on the CPU.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include "../arguments.h"

namespace fastadv {

template <class F>
void add_up(const torch::stable::Tensor& row_loss, const torch::stable::Tensor& loss) {
  double total = 0;
  for (int64_t i = 0; i < row_loss.numel(); ++i) total += static_cast<const F*>(row_loss.data_ptr())[i];
  *static_cast<F*>(loss.data_ptr()) = static_cast<F>(total);
}

// row_loss [m] and loss, a scalar to be written: both of the compute dtype.
inline void add_up(DType dtype, const torch::stable::Tensor& row_loss, const torch::stable::Tensor& loss) {
  if (dtype == DType::float64) add_up<double>(row_loss, loss);
  else add_up<float>(row_loss, loss);
}

}  // namespace fastadv
