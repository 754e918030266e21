// A CUDA runtime that runs nothing: it responds like a machine with two GPUs, and logs who called what, in order.
//
// LD_PRELOAD puts it in front of PyTorch's runtime, and the test build of fastadv._C is linked to it instead of to its
// own. A call can be made to fail. The responses are those that CUDA's documentation describes for a healthy device;
// only a GPU can confirm them. Functions that are missing here are those of the real runtime, which finds no driver and
// fails. Stricter than CUDA: while a stream is captured, waiting for any stream or event is refused. Not modelled: the
// order of work in streams and events, and to which device a stream belongs.
//
// Device memory is reserved address space: host code that reads or writes it crashes.
#pragma once

#include <cuda_runtime_api.h>

#include <string>

namespace recorder {

constexpr int kDevices = 2;

// Logs a call and returns its error, which also becomes the last error of the calling library.
// caller: an address within the calling code.
cudaError_t called(const char* function, const void* caller, const std::string& details);
// Returns `error`, and remembers it as the last error.
cudaError_t remembered(cudaError_t error, const void* caller);

// The thread's current device.
extern thread_local int device;

// Whether a stream of the process is being captured, and how this thread's capture mode restricts what may be called.
bool capturing();
bool relaxed();
void invalidate_capture();
// Logs a kernel, copy or fill that is put on a stream.
cudaError_t enqueued(cudaStream_t stream);

// The last error of the calling library and thread.
cudaError_t last_error(const void* caller, bool clear);

}  // namespace recorder

// The first line of every function of the runtime; a string is logged with the call.
#define RECORD(...)                                                                                                \
  if (const cudaError_t error = recorder::called(__func__, __builtin_return_address(0), std::string(__VA_ARGS__)); \
      error != cudaSuccess)                                                                                        \
  return error

// The result of a function that fails without being told to.
#define RESULT(error) recorder::remembered(error, __builtin_return_address(0))
