// Kernels: their names, as the compiler's code registers them, and their launches, which run nothing.
#include <cxxabi.h>

#include <cstdlib>
#include <memory>
#include <mutex>
#include <unordered_map>

#include "recorder.h"

namespace {

// Never destroyed: libraries unregister their kernels at the end of the process.
auto& names = *new std::unordered_map<const void*, const char*>;  // mangled names, by host function
auto& mutex = *new std::mutex;

struct Configuration {
  dim3 grid, block;
  size_t shared;
  cudaStream_t stream;
};
thread_local Configuration configuration;

std::string name_of(const void* kernel) {
  const std::lock_guard<std::mutex> lock(mutex);
  const auto found = names.find(kernel);
  if (found == names.end()) return "?";
  const std::unique_ptr<char, decltype(&std::free)> plain(abi::__cxa_demangle(found->second, nullptr, nullptr, nullptr),
                                                          std::free);
  return plain ? plain.get() : found->second;
}

std::string text(dim3 size) {
  return std::to_string(size.x) + "," + std::to_string(size.y) + "," + std::to_string(size.z);
}

// Kernel, grid, block, shared memory and stream.
std::string details(const void* kernel, const Configuration& how) {
  return name_of(kernel) + '\t' + text(how.grid) + '\t' + text(how.block) + '\t' + std::to_string(how.shared) + '\t' +
         std::to_string(reinterpret_cast<uintptr_t>(how.stream));
}

}  // namespace

extern "C" {

void** __cudaRegisterFatBinary(void* binary) { return static_cast<void**>(binary); }
void __cudaRegisterFatBinaryEnd(void**) {}
void __cudaUnregisterFatBinary(void**) {}
char __cudaInitModule(void**) { return 1; }
void __cudaRegisterVar(void**, char*, char*, const char*, int, size_t, int, int) {}
void __cudaRegisterManagedVar(void**, void**, char*, const char*, int, size_t, int, int) {}
void __cudaRegisterFunction(void**, const char* host, char*, const char* name, int, uint3*, uint3*, dim3*, dim3*,
                            int*) {
  const std::lock_guard<std::mutex> lock(mutex);
  names[host] = name;
}

// kernel<<<grid, block, shared, stream>>>(...) pushes the configuration and calls the kernel's host function, which
// pops it and launches.
unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, CUstream_st* stream) {
  configuration = {grid, block, shared, stream};
  return 0;
}
cudaError_t __cudaPopCallConfiguration(dim3* grid, dim3* block, size_t* shared, void* stream) {
  *grid = configuration.grid;
  *block = configuration.block;
  *shared = configuration.shared;
  *static_cast<cudaStream_t*>(stream) = configuration.stream;
  return cudaSuccess;
}

cudaError_t __cudaGetKernel(cudaKernel_t* kernel, const void* host) {
  *kernel = reinterpret_cast<cudaKernel_t>(const_cast<void*>(host));
  return cudaSuccess;
}
cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void**, size_t shared, cudaStream_t stream) {
  RECORD(details(kernel, {grid, block, shared, stream}));
  return RESULT(recorder::enqueued(stream));
}
cudaError_t cudaLaunchKernel(const void* kernel, dim3 grid, dim3 block, void**, size_t shared, cudaStream_t stream) {
  RECORD(details(kernel, {grid, block, shared, stream}));
  return RESULT(recorder::enqueued(stream));
}
cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t* how, const void* kernel, void**) {
  RECORD(details(kernel, {how->gridDim, how->blockDim, how->dynamicSmemBytes, how->stream}));
  return RESULT(recorder::enqueued(how->stream));
}
}
