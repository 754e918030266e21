// Devices and their properties, versions and errors.
#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>

#include "recorder.h"

namespace {

constexpr int kMajor = 9, kMinor = 0, kMultiprocessors = 132;

// A function of PyTorch's own runtime, which has the texts of errors.
template <class Function>
Function real(const char* name) {
  const std::string library = "libcudart.so." + std::to_string(CUDART_VERSION / 1000);
  void* const runtime = dlopen(library.c_str(), RTLD_LAZY | RTLD_NOLOAD);
  void* const function = runtime == nullptr ? nullptr : dlsym(runtime, name);
  if (function == nullptr) {
    std::fprintf(stderr, "recorder: %s is not loaded, or has no %s\n", library.c_str(), name);
    std::abort();
  }
  return reinterpret_cast<Function>(function);
}

bool exists(int device) { return device >= 0 && device < recorder::kDevices; }

}  // namespace

extern "C" {

const char* cudaGetErrorString(cudaError_t error) {
  return real<decltype(&cudaGetErrorString)>("cudaGetErrorString")(error);
}
const char* cudaGetErrorName(cudaError_t error) { return real<decltype(&cudaGetErrorName)>("cudaGetErrorName")(error); }

cudaError_t cudaGetLastError() {
  RECORD();
  return recorder::last_error(__builtin_return_address(0), true);
}
cudaError_t cudaPeekAtLastError() {
  RECORD();
  return recorder::last_error(__builtin_return_address(0), false);
}

cudaError_t cudaDriverGetVersion(int* version) {
  RECORD();
  return *version = CUDART_VERSION, cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* version) {
  RECORD();
  return *version = CUDART_VERSION, cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int* count) {
  RECORD();
  return *count = recorder::kDevices, cudaSuccess;
}
cudaError_t cudaGetDevice(int* device) {
  RECORD();
  return *device = recorder::device, cudaSuccess;
}
cudaError_t cudaSetDevice(int device) {
  RECORD(std::to_string(device));
  if (!exists(device)) return RESULT(cudaErrorInvalidDevice);
  return recorder::device = device, cudaSuccess;
}
cudaError_t cudaDeviceSynchronize() {
  RECORD();
  return cudaSuccess;
}
cudaError_t cudaDeviceCanAccessPeer(int* can, int, int) {
  RECORD();
  return *can = 0, cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  RECORD(std::to_string(device));
  *properties = {};
  std::snprintf(properties->name, sizeof(properties->name), "Recorded GPU %d", device);
  properties->major = kMajor;
  properties->minor = kMinor;
  properties->multiProcessorCount = kMultiprocessors;
  properties->totalGlobalMem = size_t{1} << 46;
  properties->warpSize = 32;
  properties->maxThreadsPerBlock = 1024;
  properties->maxThreadsPerMultiProcessor = 2048;
  for (int i = 0; i < 3; ++i) properties->maxGridSize[i] = i == 0 ? INT32_MAX : 65535;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  RECORD(std::to_string(device));
  switch (attribute) {
    case cudaDevAttrMultiProcessorCount: return *value = kMultiprocessors, cudaSuccess;
    case cudaDevAttrComputeCapabilityMajor: return *value = kMajor, cudaSuccess;
    case cudaDevAttrComputeCapabilityMinor: return *value = kMinor, cudaSuccess;
    default: return RESULT(cudaErrorInvalidValue);
  }
}
}
