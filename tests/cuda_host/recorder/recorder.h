// A CUDA runtime that runs nothing: it answers as two GPUs would, and writes down who called what, in order.
//
// Loaded before everything else in a process (LD_PRELOAD), it takes the place of PyTorch's runtime; the test build of
// fastadv._C is linked to it in the place of its own. A call can be told to fail. What is answered is what CUDA's
// documentation says of a healthy device; whether a GPU agrees, only a GPU shows. Functions that are not here are those
// of the real runtime, which finds no driver and fails. Stricter than CUDA: while a stream is captured, no stream and
// no event may be waited for. Not modelled: the order of work in streams and events, and to which device a stream
// belongs.
//
// Device memory is address space without access: host code that reads or writes it ends the process.
#pragma once

#include <cuda_runtime_api.h>

#include <string>

namespace recorder {

constexpr int kDevices = 2;

// Writes down a call and returns the error that it must return, which is remembered as the last error of its library.
// caller: an address within the calling code.
cudaError_t called(const char* function, const void* caller, const std::string& details);
// The same error, remembered.
cudaError_t remembered(cudaError_t error, const void* caller);

// The thread's current device.
extern thread_local int device;

// Whether a stream of the process is being captured, and how this thread's capture mode restricts what may be called.
bool capturing();
bool relaxed();
void invalidate_capture();
// A kernel, copy or fill that is put on a stream.
cudaError_t enqueued(cudaStream_t stream);

// Of the calling library and thread: with a call that fails it becomes that call's error.
cudaError_t last_error(const void* caller, bool clear);

}  // namespace recorder

// The first line of every function of the runtime. A string is written down with the call.
#define RECORD(...)                                                                                                \
  if (const cudaError_t error = recorder::called(__func__, __builtin_return_address(0), std::string(__VA_ARGS__)); \
      error != cudaSuccess)                                                                                        \
  return error

// The result of a function that fails of itself.
#define RESULT(error) recorder::remembered(error, __builtin_return_address(0))
