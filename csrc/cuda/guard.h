// What every CUDA operator does around its launch: the tensor's device, torch's current stream, the launch's error.
#pragma once

#include <cuda_runtime_api.h>
#include <dlfcn.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/tensor.h>

#include <optional>
#include <string>

#include "../checks/errors.h"

namespace fastadv::cuda {

// torch's stream is looked up when first needed: linking to it would keep the module from loading beside a torch that
// was built without CUDA. The library is named, because its symbols need not be global.
inline cudaStream_t current_stream(int32_t device) {
  using Getter = int32_t (*)(int32_t, void**);
  static const Getter getter = [] {
    void* library = dlopen("libtorch_cuda.so", RTLD_LAZY | RTLD_NOLOAD);
    return reinterpret_cast<Getter>(library == nullptr ? nullptr
                                                       : dlsym(library, "aoti_torch_get_current_cuda_stream"));
  }();
  void* stream = nullptr;
  if (getter == nullptr || getter(device, &stream) != 0)
    throw std::runtime_error("fastadv: this torch offers no CUDA stream; it was built without CUDA");
  return static_cast<cudaStream_t>(stream);
}

// Errors of a kernel while it runs. A launch does not wait for its own kernel, so where a launch reports one of them it
// is of an earlier one, and the launched kernel has not run: CUDA runs nothing more in this process.
inline bool of_earlier_work(cudaError_t error) {
  switch (error) {
    case cudaErrorIllegalAddress:
    case cudaErrorMisalignedAddress:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorIllegalInstruction:
    case cudaErrorInvalidPc:
    case cudaErrorHardwareStackError:
    case cudaErrorAssert:
    case cudaErrorLaunchFailure:
    case cudaErrorLaunchTimeout:
    case cudaErrorECCUncorrectable: return true;
    default: return false;
  }
}

// 13000 is CUDA 13.0.
inline std::string version(int number) {
  return std::to_string(number / 1000) + "." + std::to_string(number % 1000 / 10);
}

inline void check_launch(const char* op, cudaError_t error) {
  if (error == cudaSuccess) return;
  cudaGetLastError();  // clears it: the next launch would report it as its own
  if (error == cudaErrorMemoryAllocation)
    checks::fail("OutOfMemoryError", op, "the GPU has no memory left to launch the kernel (", cudaGetErrorString(error),
                 "); nothing was written");
  if (of_earlier_work(error))
    checks::fail("RuntimeError", op,
                 "not run, because work that was launched earlier on this GPU failed: ", cudaGetErrorString(error),
                 " (", cudaGetErrorName(error),
                 "). CUDA_LAUNCH_BLOCKING=1 shows which; this process cannot use the GPU any more");
  if (error == cudaErrorNoKernelImageForDevice || error == cudaErrorInvalidDeviceFunction) {
    int device = 0;
    cudaDeviceProp properties{};
    cudaGetDevice(&device);
    cudaGetDeviceProperties(&properties, device);
    checks::fail("RuntimeError", op, "no kernel was compiled for this GPU (", properties.name, ", compute capability ",
                 properties.major, ".", properties.minor, "); compiled are ", FASTADV_CUDA_ARCHS,
                 ". Rebuild with FASTADV_CUDA_ARCHS=", properties.major, properties.minor,
                 " pip install --no-build-isolation .");
  }
  if (error == cudaErrorInsufficientDriver) {
    int driver = 0, runtime = 0;
    cudaDriverGetVersion(&driver);
    cudaRuntimeGetVersion(&runtime);
    checks::fail("RuntimeError", op, "fastadv was built with CUDA ", version(runtime),
                 ", and the NVIDIA driver here supports no more than ", version(driver),
                 ". Update the driver, or rebuild with a CUDA toolkit that it supports: "
                 "pip install --no-build-isolation .");
  }
  checks::fail("RuntimeError", op, cudaGetErrorString(error), " (", cudaGetErrorName(error), ")");
}

// Asked for before PyTorch's guard is made, which meets an error of earlier work in words of its own, or ends the
// process by it.
inline int32_t current_device(const char* op) {
  int device = -1;
  check_launch(op, cudaGetDevice(&device));
  return device;
}

// Called before PyTorch allocates on the device: it reports an error of earlier work without the operator's name, and
// before version 2.13 without its reason.
inline void check_device(const char* op) { current_device(op); }

#ifdef FASTADV_SIMT  // tests run the kernels on the host, in place of the CPU's own
template <class Launch>
void on_device_of(const char* op, const torch::stable::Tensor&, Launch launch) {
  check_device(op);
  check_launch(op, launch(nullptr));
}
#else
using Guard = std::optional<torch::stable::accelerator::DeviceGuard>;

// PyTorch's own error names no operator.
inline void make_current(const char* op, int32_t device, Guard& guard) {
  try {
    guard.emplace(device);
  } catch (const std::exception& error) {
    checks::fail("RuntimeError", op, "cuda:", device, " cannot be made current: ", error.what());
  }
}

// Runs launch(stream) on the tensor's device and its current stream.
template <class Launch>
void on_device_of(const char* op, const torch::stable::Tensor& tensor, Launch launch) {
  const int32_t device = tensor.get_device_index();
  Guard guard;  // made on the heap, and so for another device alone
  if (current_device(op) != device) make_current(op, device, guard);
  check_launch(op, launch(current_stream(device)));
}
#endif

}  // namespace fastadv::cuda
