// One launch over rows of logits: a warp takes a row, or a block where there are many classes.
#pragma once

#include "launch.cuh"
#include "register_row.cuh"

namespace fastadv::cuda {

// body(row, its index) for the row of the calling group, if there is one; args names logits, dlogits, rows and classes.
// There is no loop over rows, whose registers would be the row's: all that memory holds fit a grid.
template <class Row, class Args, class Body>
__device__ __forceinline__ void with_own_row(const Args& args, Body body) {
  const int64_t i = thread_index() / Row::kGroup, first = i * args.classes;
  if (i >= args.rows) return;
  body(Row{static_cast<const typename Row::Stored*>(args.logits) + first,
           static_cast<typename Row::Derivative*>(args.dlogits) + first, args.classes,
           static_cast<int>(threadIdx.x) % Row::kGroup},
       i);
}

template <class Row>
unsigned blocks_of_rows(int64_t rows) {
  return static_cast<unsigned>((rows * Row::kGroup + kThreads - 1) / kThreads);
}

template <class Row>
constexpr int kRowBlocks = sizeof(typename Row::F) == 8 ? 2 : Row::kBlocks;

// launch(the type that holds a row of these logits, null).
template <class T, class D, class Args, class Launch>
void with_row(const Args& args, Launch launch) {
  const auto aligned = [](const void* pointer, size_t to) { return reinterpret_cast<uintptr_t>(pointer) % to == 0; };
  if (args.classes > kMostHeld) return launch(static_cast<MemoryRow<T, D, kThreads>*>(nullptr));
  if (args.classes % kWide<T> == 0 && aligned(args.logits, 16) && aligned(args.dlogits, kWide<T> * sizeof(D)))
    return launch(static_cast<RegisterRow<T, D, true>*>(nullptr));
  launch(static_cast<RegisterRow<T, D, false>*>(nullptr));
}

}  // namespace fastadv::cuda
