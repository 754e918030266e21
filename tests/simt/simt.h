// Runs CUDA kernels on the CPU: the very .cu files, compiled as C++, with a real thread for each CUDA thread.
//
// A launch runs its blocks one after another. What a kernel must not do ends the process with a message that names the
// kernel, block and thread: a __syncthreads that some thread of the block left out or reached elsewhere, a shuffle or
// vote that a lane of its mask left out. Out-of-bounds accesses and undefined arithmetic are left to AddressSanitizer
// and UndefinedBehaviorSanitizer, races to ThreadSanitizer: threads are ordered for it by __syncthreads and by the ends
// of launches, but not by shuffles and votes, which on a GPU order nothing either.
//
// What is not modelled, and so not checked:
//   - blocks that run at the same time, and any order of memory weaker than this machine's. Races between blocks are
//     seen only in kernels that never call __syncthreads, and not between threads of the same index;
//   - warps in lockstep: between collectives, lanes run in whatever order the machine likes;
//   - uninitialised shared memory: it is static, begins as zero and keeps what the block before left. Shared arrays of
//     templates have no red zones, so that only an index beyond one is caught, not a pointer;
//   - streams (a launch is over when it returns), dynamic shared memory, more than one dimension of blocks or threads,
//     parts of warps as `width`, limits of registers and shared memory, speed.
// Stricter than CUDA: lanes of a mask must not wait at another collective, even one that would let them go on.
//
// Environment:
//   FASTADV_SIMT_BLOCKS  most blocks of a grid, 3 where it is not set: more work makes the threads stride
//   FASTADV_SIMT_ENDS    run only so many of a grid's first and last blocks
//   FASTADV_SIMT_ERROR   every launch fails with this error and runs nothing
//   FASTADV_SIMT_FAILS   only launches of kernels whose name has this in it
//   FASTADV_SIMT_LOG     a file that gets a line for each launch: the source file that launches, and the kernel
#pragma once

#include <condition_variable>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <tuple>
#include <utility>

#include "../../csrc/cpu/element.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __grid_constant__
#define __shared__ static  // one block runs at a time

#define FASTADV_LAUNCH(kernel, blocks, threads, stream, ...) \
  simt::launch(#kernel, __FILE__, __LINE__, blocks, threads, stream, kernel, __VA_ARGS__)
#define FASTADV_MOST_BLOCKS simt::setting("FASTADV_SIMT_BLOCKS", 3)

// --- what kernels see of themselves ----------------------------------------------------------------------------------

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
};
inline thread_local dim3 threadIdx, blockIdx, blockDim, gridDim;

// --- the runtime API -------------------------------------------------------------------------------------------------

using cudaStream_t = struct CUstream_st*;
// The errors that kernels' callers tell apart, by CUDA's numbers.
// clang-format off
#define SIMT_ERRORS(_) \
  _(cudaSuccess, 0) \
  _(cudaErrorInvalidValue, 1) \
  _(cudaErrorMemoryAllocation, 2) \
  _(cudaErrorInvalidConfiguration, 9) \
  _(cudaErrorInsufficientDriver, 35) \
  _(cudaErrorInvalidDeviceFunction, 98) \
  _(cudaErrorNoKernelImageForDevice, 209) \
  _(cudaErrorECCUncorrectable, 214) \
  _(cudaErrorIllegalAddress, 700) \
  _(cudaErrorLaunchTimeout, 702) \
  _(cudaErrorAssert, 710) \
  _(cudaErrorHardwareStackError, 714) \
  _(cudaErrorIllegalInstruction, 715) \
  _(cudaErrorMisalignedAddress, 716) \
  _(cudaErrorInvalidAddressSpace, 717) \
  _(cudaErrorInvalidPc, 718) \
  _(cudaErrorLaunchFailure, 719)
// clang-format on
enum cudaError_t {
#define SIMT_ERROR(name, number) name = number,
  SIMT_ERRORS(SIMT_ERROR)
#undef SIMT_ERROR
};
struct cudaDeviceProp {
  char name[256] = "SIMT host";
  int major = 1, minor = 0;
};

// FASTADV_SIMT_DEVICE_ERROR is what the host meets before it launches anything.
inline cudaError_t cudaGetDevice(int* device) {
  const char* error = std::getenv("FASTADV_SIMT_DEVICE_ERROR");
  return *device = 0, static_cast<cudaError_t>(error == nullptr ? cudaSuccess : std::atoi(error));
}
inline cudaError_t cudaDriverGetVersion(int* version) { return *version = 12080, cudaSuccess; }
inline cudaError_t cudaRuntimeGetVersion(int* version) { return *version = 13000, cudaSuccess; }
inline cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
  return *properties = cudaDeviceProp{}, cudaSuccess;
}
inline const char* cudaGetErrorName(cudaError_t error) {
  switch (error) {
#define SIMT_ERROR(name, number) \
  case name: return #name;
    SIMT_ERRORS(SIMT_ERROR)
#undef SIMT_ERROR
    default: return "an unknown error";
  }
}
inline const char* cudaGetErrorString(cudaError_t error) { return cudaGetErrorName(error); }

// --- for ThreadSanitizer ---------------------------------------------------------------------------------------------

#if defined(__SANITIZE_THREAD__)
extern "C" {
void AnnotateIgnoreSyncBegin(const char*, int);
void AnnotateIgnoreSyncEnd(const char*, int);
void AnnotateIgnoreReadsBegin(const char*, int);
void AnnotateIgnoreReadsEnd(const char*, int);
void AnnotateIgnoreWritesBegin(const char*, int);
void AnnotateIgnoreWritesEnd(const char*, int);
void __tsan_acquire(void*);
void __tsan_release(void*);
}
#endif

namespace simt {

// While one lives, the sanitizer sees neither the accesses nor the locks of this thread: the host's own bookkeeping
// must not order the kernel's threads.
struct Unseen {
#if defined(__SANITIZE_THREAD__)
  Unseen() {
    AnnotateIgnoreSyncBegin(__FILE__, __LINE__);
    AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
    AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
  }
  ~Unseen() {
    AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
    AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
    AnnotateIgnoreSyncEnd(__FILE__, __LINE__);
  }
#else
  Unseen() {}
#endif
};

// What happens before a release also happens before whatever follows a later acquire.
struct Edge {
#if defined(__SANITIZE_THREAD__)
  void release() { __tsan_release(this); }
  void acquire() { __tsan_acquire(this); }
#else
  void release() {}
  void acquire() {}
#endif
  char address = 0;
};

// --- a block ---------------------------------------------------------------------------------------------------------

constexpr unsigned kLanes = 32, kMostThreads = 1024;
constexpr unsigned kBallot = kLanes;  // the source of a vote: every lane

struct Place {  // a line of a kernel
  const char* file;
  int line;
  bool operator==(const Place& other) const { return line == other.line && std::strcmp(file, other.file) == 0; }
};

enum class State { runs, at_barrier, at_collective, left };

struct Thread {
  State state = State::runs;
  Place place{"", 0};                // of the barrier or collective
  unsigned mask = 0, source = 0;     // of the collective
  uint64_t value = 0, received = 0;  // given to it, and got from it
  unsigned barriers = 0;             // passed in this block
};

class Block {
 public:
  void begin(unsigned threads, std::string kernel) {
    size_ = threads;
    kernel_ = std::move(kernel);
  }

  void barrier(Place place) {
    Thread& me = self();
    // Two edges in turn: a thread that is already on its way to the next barrier must not order one that has yet to
    // return from this one.
    Edge& edge = barrier_edges_[me.barriers++ % 2];
    edge.release();
    meet(State::at_barrier, place);
    edge.acquire();
  }

  // The end of the block. The next begins when all threads are here; behind the last one nobody waits.
  void leave(bool last) {
    const bool ordered = self().barriers > 0;
    if (ordered) end_edge_.release();
    meet(State::left, {"", 0}, !last);
    if (ordered) end_edge_.acquire();
    self().barriers = 0;
  }

  // Gives `value` and returns that of lane `source`, or a bit for each lane whose value is not zero.
  uint64_t collective(Place place, unsigned mask, unsigned source, uint64_t value) {
    const Unseen unseen;
    std::unique_lock<std::mutex> lock(mutex_);
    Thread& me = self();
    me.state = State::at_collective;
    me.place = place;
    me.mask = mask;
    me.source = source;
    me.value = value;
    if (all_arrived(me)) exchange(mask);
    else warp_changed_[warp()].wait(lock, [&] { return me.state == State::runs; });
    return me.received;
  }

 private:
  Thread& self() { return threads_[threadIdx.x]; }
  static unsigned warp() { return threadIdx.x / kLanes; }

  // Enters a state and waits until every thread of the block is in it.
  void meet(State state, Place place, bool wait = true) {
    const Unseen unseen;
    std::unique_lock<std::mutex> lock(mutex_);
    Thread& me = self();
    me.state = state;
    me.place = place;
    for (unsigned t = 0; t < size_; ++t) may_wait_with(threads_[t], t);
    if (++arrived_ < size_) {
      const uint64_t seen = met_;
      if (wait) changed_.wait(lock, [&] { return met_ != seen; });
      return;
    }
    arrived_ = 0;
    ++met_;
    for (unsigned t = 0; t < size_; ++t) threads_[t].state = State::runs;
    changed_.notify_all();
  }

  void may_wait_with(const Thread& other, unsigned index) {
    const Thread& me = self();
    const bool awaits_me = other.state == State::at_collective && index / kLanes == warp() &&
                           (other.mask >> threadIdx.x % kLanes & 1) != 0;
    const bool elsewhere = (other.state == State::at_barrier || other.state == State::left) &&
                           !(other.state == me.state && other.place == me.place);
    if (awaits_me || elsewhere) disagree(other, index);
  }

  bool all_arrived(const Thread& me) {
    bool all = true;
    const unsigned first = warp() * kLanes;
    if ((me.mask >> threadIdx.x % kLanes & 1) == 0) fail(" whose mask lacks it");
    if (me.source < kBallot && (me.mask >> me.source & 1) == 0) fail(" for a lane that its mask lacks");
    for (unsigned lane = 0; lane < kLanes; ++lane) {
      if ((me.mask >> lane & 1) == 0) continue;
      if (first + lane >= size_) fail(" for a lane that its block lacks");
      const Thread& other = threads_[first + lane];
      const bool here = other.state == State::at_collective && other.mask == me.mask && other.place == me.place;
      if (!here && other.state != State::runs) disagree(other, first + lane);
      all = all && here;
    }
    return all;
  }

  void exchange(unsigned mask) {
    Thread* lanes = &threads_[warp() * kLanes];
    unsigned ballot = 0;
    for (unsigned lane = 0; lane < kLanes; ++lane)
      if ((mask >> lane & 1) != 0 && lanes[lane].value != 0) ballot |= 1u << lane;
    for (unsigned lane = 0; lane < kLanes; ++lane) {
      if ((mask >> lane & 1) == 0) continue;
      lanes[lane].received = lanes[lane].source == kBallot ? ballot : lanes[lanes[lane].source].value;
      lanes[lane].state = State::runs;
    }
    warp_changed_[warp()].notify_all();
  }

  static std::string text(const Thread& thread) {
    if (thread.state == State::left) return "has left the kernel";
    const char* what = thread.state == State::at_barrier ? "waits at __syncthreads" : "waits at a shuffle or vote";
    return std::string(what) + " (" + thread.place.file + ":" + std::to_string(thread.place.line) + ")";
  }

  [[noreturn]] void disagree(const Thread& other, unsigned index) {
    fail(", but thread " + std::to_string(index) + " " + text(other));
  }

  [[noreturn]] void fail(const std::string& what) {
    std::fprintf(stderr, "simt: kernel %s, block %u, thread %u %s%s\n", kernel_.c_str(), blockIdx.x, threadIdx.x,
                 text(self()).c_str(), what.c_str());
    std::abort();
  }

  std::string kernel_;
  std::mutex mutex_;
  Thread threads_[kMostThreads];
  unsigned size_ = 0, arrived_ = 0;
  uint64_t met_ = 0;
  std::condition_variable changed_, warp_changed_[kMostThreads / kLanes];
  Edge barrier_edges_[2], end_edge_;
};

// --- launches --------------------------------------------------------------------------------------------------------

inline int64_t setting(const char* name, int64_t unset) {
  const char* text = std::getenv(name);
  return text == nullptr ? unset : std::strtoll(text, nullptr, 10);
}

struct Launch {
  const std::function<void()>* kernel;
  unsigned blocks, threads;
};

// The threads, kept from launch to launch; there are as many as the largest block had.
class Pool {
 public:
  void run(const Launch& launch, const std::string& kernel) {
    const std::lock_guard<std::mutex> one_at_a_time(launching_);
    for (; size_ < launch.threads; ++size_) std::thread(&Pool::work, this, size_, launches_).detach();
    started_.release();
    {
      const Unseen unseen;
      std::unique_lock<std::mutex> lock(mutex_);
      block.begin(launch.threads, kernel);
      launch_ = launch;
      busy_ = size_;
      ++launches_;
      changed_.notify_all();
      done_.wait(lock, [&] { return busy_ == 0; });
    }
    finished_.acquire();
  }

  Block block;

 private:
  void work(unsigned index, uint64_t seen) {
    threadIdx.x = index;
    for (;;) {
      const Launch launch = next(seen);
      if (index < launch.threads) run_blocks(launch);
      const Unseen unseen;
      const std::lock_guard<std::mutex> lock(mutex_);
      if (--busy_ == 0) done_.notify_one();
    }
  }

  Launch next(uint64_t& seen) {
    const Unseen unseen;
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [&] { return launches_ != seen; });
    seen = launches_;
    return launch_;
  }

  void run_blocks(const Launch& launch) {
    started_.acquire();
    gridDim.x = launch.blocks;
    blockDim.x = launch.threads;
    const int64_t ends = setting("FASTADV_SIMT_ENDS", launch.blocks);
    for (int64_t b = 0; b < launch.blocks; ++b) {
      if (b == ends && b < launch.blocks - ends) b = launch.blocks - ends;
      blockIdx.x = static_cast<unsigned>(b);
      (*launch.kernel)();
      block.leave(b + 1 == launch.blocks);
    }
    finished_.release();
  }

  std::mutex launching_, mutex_;
  std::condition_variable changed_, done_;
  Launch launch_{nullptr, 0, 0};
  uint64_t launches_ = 0;
  unsigned size_ = 0, busy_ = 0;
  Edge started_, finished_;
};

// Never destroyed: its threads outlive main.
inline Pool& pool() {
  static Pool* const only = new Pool;
  return *only;
}

inline thread_local cudaError_t last_error = cudaSuccess;

inline void log_launch(const char* name, const char* file) {
  const char* path = std::getenv("FASTADV_SIMT_LOG");
  if (path == nullptr) return;
  std::FILE* const log = std::fopen(path, "a");
  if (log == nullptr) std::abort();
  const char* const folder = std::strrchr(file, '/');
  std::fprintf(log, "%s: %s\n", folder == nullptr ? file : folder + 1, name);
  std::fclose(log);
}

template <class... Parameters, class... Arguments>
void launch(const char* name, const char* file, int line, unsigned blocks, unsigned threads, cudaStream_t,
            void (*kernel)(Parameters...), const Arguments&... arguments) {
  const char* fails = std::getenv("FASTADV_SIMT_FAILS");
  const bool forced = fails == nullptr || std::strstr(name, fails) != nullptr;
  const bool valid = blocks > 0 && blocks <= INT32_MAX && threads > 0 && threads <= kMostThreads;
  const auto error = !valid   ? cudaErrorInvalidConfiguration
                     : forced ? static_cast<cudaError_t>(setting("FASTADV_SIMT_ERROR", cudaSuccess))
                              : cudaSuccess;
  if (error != cudaSuccess) {
    last_error = error;  // which a later launch that succeeds does not take back
    return;
  }
  log_launch(name, file);
  const std::tuple<Parameters...> parameters(arguments...);
  const std::function<void()> call = [&] { std::apply(kernel, parameters); };
  pool().run({&call, blocks, threads}, std::string(name) + ", launched at " + file + ":" + std::to_string(line));
}

template <class V>
V collective(Place place, unsigned mask, unsigned source, V value) {
  static_assert(sizeof(V) <= sizeof(uint64_t), "lanes exchange up to 64 bits");
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(value));
  bits = pool().block.collective(place, mask, source, bits);
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

}  // namespace simt

inline cudaError_t cudaPeekAtLastError() { return simt::last_error; }
inline cudaError_t cudaGetLastError() { return std::exchange(simt::last_error, cudaSuccess); }

// As many multiprocessors as blocks may run: no kernel is kept from what FASTADV_SIMT_BLOCKS allows it.
enum cudaDeviceAttr { cudaDevAttrMultiProcessorCount };
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int) {
  return *value = static_cast<int>(FASTADV_MOST_BLOCKS), cudaSuccess;
}

// --- what kernels call -----------------------------------------------------------------------------------------------

#define SIMT_CALLER const char *file = __builtin_FILE(), int line = __builtin_LINE()

inline void __syncthreads(SIMT_CALLER) { simt::pool().block.barrier({file, line}); }

template <class V>
V __shfl_sync(unsigned mask, V value, int source, SIMT_CALLER) {
  return simt::collective({file, line}, mask, static_cast<unsigned>(source) % simt::kLanes, value);
}
template <class V>
V __shfl_xor_sync(unsigned mask, V value, int distance, SIMT_CALLER) {
  return __shfl_sync(mask, value, static_cast<int>(threadIdx.x) ^ distance, file, line);
}
inline unsigned __ballot_sync(unsigned mask, int predicate, SIMT_CALLER) {
  return static_cast<unsigned>(simt::collective<uint64_t>({file, line}, mask, simt::kBallot, predicate != 0));
}
inline int __any_sync(unsigned mask, int predicate, SIMT_CALLER) {
  return __ballot_sync(mask, predicate, file, line) != 0;
}
inline int __all_sync(unsigned mask, int predicate, SIMT_CALLER) {
  return __ballot_sync(mask, predicate, file, line) == mask;
}

#undef SIMT_CALLER

template <class V>
V atomicAdd(V* to, V value) {
  V old, sum;
  __atomic_load(to, &old, __ATOMIC_RELAXED);
  do sum = old + value;
  while (!__atomic_compare_exchange(to, &old, &sum, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
  return old;
}

// --- half precision --------------------------------------------------------------------------------------------------

struct __nv_bfloat16 {
  fastadv::cpu::BFloat16 stored;
};
struct __half {
  fastadv::cpu::Float16 stored;
};

inline float __bfloat162float(__nv_bfloat16 value) { return fastadv::cpu::load(value.stored); }
inline float __half2float(__half value) { return fastadv::cpu::load(value.stored); }

inline __nv_bfloat16 __float2bfloat16_rn(float value) {
  __nv_bfloat16 rounded;
  fastadv::cpu::store(rounded.stored, value);
  return rounded;
}
inline __half __float2half_rn(float value) {
  __half rounded;
  fastadv::cpu::store(rounded.stored, value);
  return rounded;
}
