// Runs CUDA kernels on the CPU: the .cu files themselves, compiled as C++, with a stack for each CUDA thread.
//
// A launch runs its blocks one after another, and the threads of a block one at a time, each until it has to wait.
// A kernel that breaks the rules of its barriers ends the process with a message that names the kernel, block and
// thread: a __syncthreads that a thread of the block skipped or reached elsewhere, a shuffle or vote that a lane of its
// mask skipped. AddressSanitizer and UndefinedBehaviorSanitizer find accesses out of bounds and undefined arithmetic.
// ThreadSanitizer, for which every CUDA thread is a thread of its own, finds races: __syncthreads and the ends of
// launches order threads for it; shuffles and votes, which order nothing on a GPU either, do not.
//
// Not modelled, and so not checked:
//   - blocks that run at the same time, and memory weaker than this machine's. Races between blocks are found only in
//     kernels that never call __syncthreads, and not between threads of the same index;
//   - warps in lockstep: between collectives, threads run in order, and in reverse order after every second barrier;
//   - uninitialised shared memory: it is static, starts as zeros, and keeps what the previous block left. Shared arrays
//     in templates have no red zones: an index out of bounds is caught, but a pointer is not;
//   - streams (a launch has finished when it returns), dynamic shared memory, grids and blocks of more than one
//     dimension, a `width` below the warp's, limits of registers and shared memory, speed.
// Stricter than CUDA: lanes of a mask must not wait at another collective, even one that would let them go on.
//
// Environment:
//   FASTADV_SIMT_BLOCKS  largest number of blocks in a grid, by default 3: with more work, threads stride
//   FASTADV_SIMT_ENDS    run only this many of the first and of the last blocks of a grid
//   FASTADV_SIMT_ERROR   every launch fails with this error and runs nothing
//   FASTADV_SIMT_FAILS   limits that to kernels whose name contains this
//   FASTADV_SIMT_LOG     append a line to this file for each launch: the launching source file and the kernel
#pragma once

#include <sys/mman.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <mutex>
#include <string>
#include <tuple>
#include <utility>
#if !defined(__x86_64__)
#include <ucontext.h>
#endif

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

// --- built-in variables ----------------------------------------------------------------------------------------------

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
};
inline thread_local dim3 threadIdx, blockIdx, blockDim, gridDim;

// --- the runtime API -------------------------------------------------------------------------------------------------

using cudaStream_t = struct CUstream_st*;
// The errors that launchers distinguish, with CUDA's numbers.
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

// FASTADV_SIMT_DEVICE_ERROR makes every call before a launch fail with this error.
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

// --- for the sanitizers ----------------------------------------------------------------------------------------------

extern "C" {
#if defined(__SANITIZE_THREAD__)
void AnnotateIgnoreReadsBegin(const char*, int);
void AnnotateIgnoreReadsEnd(const char*, int);
void AnnotateIgnoreWritesBegin(const char*, int);
void AnnotateIgnoreWritesEnd(const char*, int);
void __tsan_acquire(void*);
void __tsan_release(void*);
void* __tsan_get_current_fiber();
void* __tsan_create_fiber(unsigned flags);
void __tsan_switch_to_fiber(void* fiber, unsigned flags);
#endif
#if defined(__SANITIZE_ADDRESS__)
void __sanitizer_start_switch_fiber(void** from, const void* bottom, size_t size);
void __sanitizer_finish_switch_fiber(void* to, const void** bottom, size_t* size);
#endif
}

namespace simt {

// Hides this thread's accesses from ThreadSanitizer during its lifetime: all threads share the bookkeeping.
struct Unseen {
#if defined(__SANITIZE_THREAD__)
  Unseen() {
    AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
    AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
  }
  ~Unseen() {
    AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
    AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
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

// --- stacks ----------------------------------------------------------------------------------------------------------

// A waiting thread leaves its frames on its own stack. Switching stacks takes nanoseconds; waking a thread of the
// operating system takes microseconds.
class Stack {
 public:
  // The next switch to this stack calls `function`, which must not return.
  void prepare(void (*function)()) {
    if (memory_ == nullptr) allocate();
#if defined(__x86_64__)
    void** const frame = reinterpret_cast<void**>(memory_ + kBytes) - 8;
    for (int i = 0; i < 8; ++i) frame[i] = nullptr;  // six registers, the address to continue at, a return address
    frame[6] = reinterpret_cast<void*>(function);
    pointer_ = frame;
#else
    getcontext(&context_);
    context_.uc_stack.ss_sp = memory_;
    context_.uc_stack.ss_size = kBytes;
    makecontext(&context_, function, 0);
#endif
  }

  // The stack that runs now, which is the launching one.
  void adopt() {
#if defined(__SANITIZE_THREAD__)
    fiber_ = __tsan_get_current_fiber();
#endif
  }

  // Continues where `to` left off. Returns when something switches back to `from`, unless `from` has `ended`.
  __attribute__((noinline, no_sanitize("thread"))) static void change(Stack& from, Stack& to, bool ended) {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(ended ? nullptr : &from.fake_, to.memory_, to.bytes_);
    came_from_ = &from;
#endif
#if defined(__SANITIZE_THREAD__)
    __tsan_switch_to_fiber(to.fiber_, 1);  // establishes no order
#endif
#if defined(__x86_64__)
    swap_pointers(&from.pointer_, to.pointer_);
#else
    swapcontext(&from.context_, &to.context_);
#endif
    (void)ended;
    arrived(from.fake_);
  }

  // A function calls this first when it starts on a new stack.
  static void arrived([[maybe_unused]] void* fake = nullptr) {
#if defined(__SANITIZE_ADDRESS__)
    const void* bottom = nullptr;
    size_t size = 0;
    __sanitizer_finish_switch_fiber(fake, &bottom, &size);
    came_from_->memory_ = static_cast<char*>(const_cast<void*>(bottom));  // the only way to get the launching stack's
    came_from_->bytes_ = size;
#endif
  }

 private:
  static constexpr size_t kBytes = 256 << 10, kGuard = 64 << 10;

  void allocate() {
    void* const mapped = mmap(nullptr, kGuard + kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapped == MAP_FAILED || mprotect(mapped, kGuard, PROT_NONE) != 0) std::abort();
    memory_ = static_cast<char*>(mapped) + kGuard;
    bytes_ = kBytes;
#if defined(__SANITIZE_THREAD__)
    fiber_ = __tsan_create_fiber(0);
#endif
  }

#if defined(__x86_64__)
  // Saves the callee-saved registers, and restores those that the other stack saved.
  __attribute__((naked, noinline, no_sanitize("address", "thread", "undefined"))) static void swap_pointers(
      void** /*from*/, void* /*to*/) {
    __asm__(
        "pushq %rbp\n pushq %rbx\n pushq %r12\n pushq %r13\n pushq %r14\n pushq %r15\n"
        "movq %rsp, (%rdi)\n movq %rsi, %rsp\n"
        "popq %r15\n popq %r14\n popq %r13\n popq %r12\n popq %rbx\n popq %rbp\n ret");
  }
  void* pointer_ = nullptr;
#else
  ucontext_t context_;
#endif
  char* memory_ = nullptr;
  size_t bytes_ = 0;
  void *fiber_ = nullptr, *fake_ = nullptr;  // handles of ThreadSanitizer and AddressSanitizer
  static inline Stack* came_from_ = nullptr;
};

// --- a block ---------------------------------------------------------------------------------------------------------

constexpr unsigned kLanes = 32, kMostThreads = 1024;
constexpr unsigned kBallot = kLanes;  // the source of a vote: every lane

struct Place {  // a line of a kernel
  const char* file;
  int line;
  bool operator==(const Place& other) const {
    return line == other.line && (file == other.file || std::strcmp(file, other.file) == 0);
  }
};

enum class State { runs, at_barrier, at_collective, left };

struct Thread {
  State state = State::runs;
  Place place{"", 0};                // of the barrier or collective
  unsigned mask = 0, source = 0;     // of the collective
  uint64_t value = 0, received = 0;  // passed to it, and returned by it
  unsigned barriers = 0;             // number passed in this block
  Stack* stack = nullptr;
};

class Block {
 public:
  // Runs the kernel in every thread of every block, or of the first and last `ends` blocks.
  void launch(const std::function<void()>& kernel, const std::string& name, unsigned blocks, unsigned threads,
              int64_t ends) {
    const std::lock_guard<std::mutex> one_at_a_time(mutex_);
    const Unseen unseen;
    kernel_ = &kernel;
    name_ = &name;
    size_ = threads;
    launching_.adopt();
    before_.release();
    for (int64_t b = 0; b < blocks; ++b) {
      if (b == ends && b < blocks - ends) b = blocks - ends;
      gridDim.x = blocks;
      blockDim.x = threads;
      blockIdx.x = static_cast<unsigned>(b);
      started_ = arrived_ = stacks_in_use_ = 0;
      Stack::change(launching_, next(), false);
    }
    after_.acquire();
  }

  void barrier(Place place) {
    Thread& me = self();
    // Two edges, used in turn: a thread on its way to the next barrier must not be ordered before one that has yet
    // to return from this one.
    Edge& edge = barrier_edges_[next_barrier() % 2];
    edge.release();
    {
      const Unseen unseen;
      arrive(me, State::at_barrier, place);
      if (arrived_ < size_) {
        wait(me);
      } else {
        arrived_ = 0;
        backwards_ = !backwards_;
        for (unsigned t = 0; t < size_; ++t) threads_[t].state = State::runs;
      }
    }
    edge.acquire();
  }

  // Passes `value`; returns the value of lane `source`, or for a vote one bit for each lane with a nonzero value.
  uint64_t collective(Place place, unsigned mask, unsigned source, uint64_t value) {
    const Unseen unseen;
    Thread& me = self();
    me.state = State::at_collective;
    me.place = place;
    me.mask = mask;
    me.source = source;
    me.value = value;
    if (all_arrived(me)) exchange(mask);
    else wait(me);
    return me.received;
  }

 private:
  Thread& self() { return threads_[threadIdx.x]; }
  static unsigned warp() { return threadIdx.x / kLanes; }

  unsigned next_barrier() {
    const Unseen unseen;
    return self().barriers++;
  }

  // --- scheduling ---

#if defined(__SANITIZE_THREAD__)
  static constexpr bool kOwnStacks = true;  // two threads that write to one stack would race
#else
  static constexpr bool kOwnStacks = false;
#endif

  // Runs on a new stack: one thread, then further ones as long as none of them has to wait.
  __attribute__((no_sanitize("thread"))) static void start();
  void run_threads() {
    do run_thread();
    while (!kOwnStacks && started_ < size_);
  }
  void run_thread() {
    begin();
    (*kernel_)();
    end();
  }
  void begin() {
    bool ordered = false;
    {
      const Unseen unseen;
      threadIdx.x = started_++;
      Thread& me = self();
      ordered = me.barriers > 0;
      me.barriers = 0;
      me.state = State::runs;
      me.stack = current_;
    }
    before_.acquire();
    if (ordered) end_edge_.acquire();
  }
  void end() {
    bool ordered = false;
    {
      const Unseen unseen;
      ordered = self().barriers > 0;
    }
    if (ordered) end_edge_.release();
    after_.release();
    const Unseen unseen;
    arrive(self(), State::left, {"", 0});
  }

  __attribute__((no_sanitize("thread"))) void leave_stack() {
    Stack& ended = *current_;
    Stack::change(ended, next_unseen(), true);
  }
  Stack& next_unseen() {
    const Unseen unseen;
    return next();
  }

  void wait(Thread& me) {
    const unsigned index = threadIdx.x;
    Stack::change(*me.stack, next(), false);
    current_ = me.stack;
    threadIdx.x = index;
  }

  // Continues with a thread that has not started, else one that can proceed, else after the launch.
  Stack& next() {
    if (started_ < size_) {
      current_ = &stacks_[stacks_in_use_++];
      current_->prepare(start);
      return *current_;
    }
    for (unsigned i = 1; i <= size_; ++i) {
      const Thread& other = threads_[(threadIdx.x + (backwards_ ? size_ - i : i)) % size_];
      if (other.state == State::runs) return *other.stack;
    }
    if (arrived_ < size_) fail(", and so does every other thread");
    return launching_;
  }

  // --- matching barriers and collectives ---

  void arrive(Thread& me, State state, Place place) {
    me.state = state;
    me.place = place;
    const unsigned first = warp() * kLanes;
    for (unsigned t = first; t < first + kLanes && t < size_; ++t)
      if (threads_[t].state == State::at_collective && (threads_[t].mask >> threadIdx.x % kLanes & 1) != 0)
        disagree(threads_[t], t);
    // The earlier ones agree with the first of them.
    const Thread& other = threads_[first_arrived_];
    if (arrived_++ == 0) first_arrived_ = threadIdx.x;
    else if (!(other.state == me.state && other.place == me.place)) disagree(other, first_arrived_);
  }

  bool all_arrived(const Thread& me) {
    bool all = true;
    const unsigned first = warp() * kLanes;
    if ((me.mask >> threadIdx.x % kLanes & 1) == 0) fail(" whose mask lacks it");
    if (me.source < kBallot && (me.mask >> me.source & 1) == 0) fail(" for a lane that its mask lacks");
    for (unsigned lane = 0; lane < kLanes; ++lane) {
      if ((me.mask >> lane & 1) == 0) continue;
      if (first + lane >= size_) fail(" for a lane that its block lacks");
      if (first + lane >= started_) return false;  // its state is from the previous block
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
    std::fprintf(stderr, "simt: kernel %s, block %u, thread %u %s%s\n", name_->c_str(), blockIdx.x, threadIdx.x,
                 text(self()).c_str(), what.c_str());
    std::abort();
  }

  std::mutex mutex_;
  const std::function<void()>* kernel_ = nullptr;
  const std::string* name_ = nullptr;
  Thread threads_[kMostThreads];
  Stack stacks_[kMostThreads], launching_, *current_ = nullptr;
  // Number of threads, of started ones, and of those at the barrier or finished; the first of the latter.
  unsigned size_ = 0, started_ = 0, arrived_ = 0, first_arrived_ = 0, stacks_in_use_ = 0;
  bool backwards_ = false;
  Edge before_, after_, barrier_edges_[2], end_edge_;
};

// Never destroyed, so that launches at the end of the process still work.
inline Block& block() {
  static Block* const only = new Block;
  return *only;
}

inline void Block::start() {
  Stack::arrived();
  Block& block = simt::block();
  block.run_threads();
  block.leave_stack();
}

// --- launches --------------------------------------------------------------------------------------------------------

inline int64_t setting(const char* name, int64_t unset) {
  const char* text = std::getenv(name);
  return text == nullptr ? unset : std::strtoll(text, nullptr, 10);
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
    last_error = error;  // a later successful launch does not clear it
    return;
  }
  log_launch(name, file);
  const std::tuple<Parameters...> parameters(arguments...);
  const std::function<void()> call = [&] { std::apply(kernel, parameters); };
  block().launch(call, std::string(name) + ", launched at " + file + ":" + std::to_string(line), blocks, threads,
                 setting("FASTADV_SIMT_ENDS", blocks));
}

template <class V>
V collective(Place place, unsigned mask, unsigned source, V value) {
  static_assert(sizeof(V) <= sizeof(uint64_t), "lanes exchange up to 64 bits");
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(value));
  bits = block().collective(place, mask, source, bits);
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

}  // namespace simt

inline cudaError_t cudaPeekAtLastError() { return simt::last_error; }
inline cudaError_t cudaGetLastError() { return std::exchange(simt::last_error, cudaSuccess); }

// As many multiprocessors as FASTADV_SIMT_BLOCKS allows blocks, so that this does not limit a grid further.
enum cudaDeviceAttr { cudaDevAttrMultiProcessorCount };
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int) {
  return *value = static_cast<int>(FASTADV_MOST_BLOCKS), cudaSuccess;
}

// --- device functions ------------------------------------------------------------------------------------------------

#define SIMT_CALLER const char *file = __builtin_FILE(), int line = __builtin_LINE()

inline void __syncthreads(SIMT_CALLER) { simt::block().barrier({file, line}); }

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
