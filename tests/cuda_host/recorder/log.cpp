// The list of calls and the planned failures, and the functions by which Python reads and sets them.
#include <dlfcn.h>

#include <map>
#include <mutex>
#include <set>

#include "recorder.h"

namespace recorder {
namespace {

// Forbidden during a capture: waits, and allocations unless the thread's mode is relaxed.
const std::set<std::string> kAllocations{"cudaMalloc",   "cudaFree",         "cudaMallocHost",     "cudaHostAlloc",
                                         "cudaFreeHost", "cudaHostRegister", "cudaHostUnregister", "cudaMallocManaged"};
const std::set<std::string> kWaits{"cudaDeviceSynchronize",
                                   "cudaStreamSynchronize",
                                   "cudaStreamQuery",
                                   "cudaEventSynchronize",
                                   "cudaEventQuery",
                                   "cudaMemcpy",
                                   "cudaMemset",
                                   "cudaMemcpyToSymbol"};
// These succeed even if the device is broken.
const std::set<std::string> kNeverFails{"cudaGetLastError", "cudaPeekAtLastError"};

struct Failure {
  std::string library, function;  // an empty library matches any
  int countdown;
  cudaError_t error;
};

std::mutex mutex;
std::string calls;  // a line each: library, function, device and details, with tabs between them
Failure failure{};
cudaError_t broken = cudaSuccess;
std::string spared;  // the function that succeeds even on a broken device
thread_local std::map<std::string, cudaError_t> last_errors;

// The file's name up to its first dot, such as libtorch_cuda or _C.
std::string library_of(const void* address) {
  Dl_info info{};
  if (dladdr(address, &info) == 0 || info.dli_fname == nullptr) return "?";
  const std::string path = info.dli_fname, name = path.substr(path.rfind('/') + 1);
  return name.substr(0, name.find('.'));
}

cudaError_t refusal(const std::string& library, const std::string& function) {
  if (kNeverFails.count(function) != 0) return cudaSuccess;
  if (function == failure.function && (failure.library.empty() || library == failure.library) &&
      --failure.countdown == 0)
    return failure.error;
  if (broken != cudaSuccess && function != spared) return broken;
  const bool allocates = kAllocations.count(function) != 0 && !relaxed();
  if (!capturing() || (!allocates && kWaits.count(function) == 0)) return cudaSuccess;
  invalidate_capture();
  return cudaErrorStreamCaptureUnsupported;
}

}  // namespace

thread_local int device = 0;

cudaError_t called(const char* function, const void* caller, const std::string& details) {
  const std::string library = library_of(caller);
  const std::lock_guard<std::mutex> lock(mutex);
  calls += library + '\t' + function + '\t' + std::to_string(device) + '\t' + details + '\n';
  return remembered(refusal(library, function), caller);
}

cudaError_t remembered(cudaError_t error, const void* caller) {
  if (error != cudaSuccess) last_errors[library_of(caller)] = error;
  return error;
}

cudaError_t last_error(const void* caller, bool clear) {
  if (broken != cudaSuccess) return broken;
  cudaError_t& last = last_errors[library_of(caller)];
  const cudaError_t error = last;
  if (clear) last = cudaSuccess;
  return error;
}

}  // namespace recorder

// --- for Python ------------------------------------------------------------------------------------------------------

extern "C" {

// Forgets the calls so far.
void recorder_clear() {
  const std::lock_guard<std::mutex> lock(recorder::mutex);
  recorder::calls.clear();
}

// Cancels all planned failures, and clears their last errors on this thread.
void recorder_heal() {
  const std::lock_guard<std::mutex> lock(recorder::mutex);
  recorder::failure = {};
  recorder::broken = cudaSuccess;
  recorder::last_errors.clear();
}

// Valid until the next call of the runtime.
const char* recorder_calls() { return recorder::calls.c_str(); }

// The n-th call of the function from now on, by that library or, if it is empty, by any, returns the error.
void recorder_fail(const char* library, const char* function, int n, int error) {
  recorder::failure = {library, function, n, static_cast<cudaError_t>(error)};
}

// Every call returns the error from now on, as after an illegal access, except those of one function.
void recorder_break(int error, const char* spared) {
  recorder::broken = static_cast<cudaError_t>(error);
  recorder::spared = spared;
}
}
