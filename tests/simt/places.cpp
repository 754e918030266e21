// Shows where the kernels locate an element; a test compares it with the truth. Reads lines of
//   examples channels plane channels_last element
// and prints for each the example, channel and place of the element and of its successor. Within a run, the cursor
// finds the successor by a step.
#include <cuda_runtime.h>

#include <iostream>

#include "../../csrc/cuda/cursor.cuh"

namespace {

template <bool kLast>
void answer(const fastadv::Step& step, int64_t element) {
  const fastadv::cuda::Places<float> places = fastadv::cuda::places<float>(step);
  fastadv::cuda::Cursor<float, kLast> at(places, element);
  std::cout << at.example << ' ' << at.channel << ' ' << at.place << ' ';
  if (at.run_holds(2, places)) at.next(places);
  else at = fastadv::cuda::Cursor<float, kLast>(places, element + 1);
  std::cout << at.example << ' ' << at.channel << ' ' << at.place << '\n';
}

}  // namespace

int main() {
  fastadv::Step step{};
  step.space.std[0] = 1.0;
  step.space.shared = true;
  fastadv::Batch& batch = step.batch;
  int64_t element = 0;
  while (std::cin >> batch.examples >> batch.channels >> batch.plane >> batch.channels_last >> element) {
    if (batch.channels_last) answer<true>(step, element);
    else answer<false>(step, element);
  }
}
