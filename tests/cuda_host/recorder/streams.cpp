// Streams, events, and the capture of a stream as a graph.
#include <atomic>

#include "recorder.h"

namespace {

std::atomic<uintptr_t> handles{0x1000};

// A handle that is no valid address.
template <class Handle>
cudaError_t make(Handle* handle) {
  return *handle = reinterpret_cast<Handle>(handles += 0x10), cudaSuccess;
}

struct Capture {
  cudaStream_t stream;
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  size_t nodes;
  unsigned long long id;
};
Capture capture;
size_t nodes_of_last_graph = 0;
thread_local cudaStreamCaptureMode mode = cudaStreamCaptureModeGlobal;

bool is_captured(cudaStream_t stream) {
  return capture.status != cudaStreamCaptureStatusNone && stream == capture.stream;
}

}  // namespace

namespace recorder {

bool capturing() { return capture.status != cudaStreamCaptureStatusNone; }
bool relaxed() { return mode == cudaStreamCaptureModeRelaxed; }
void invalidate_capture() { capture.status = cudaStreamCaptureStatusInvalidated; }

cudaError_t enqueued(cudaStream_t stream) {
  if (!capturing()) return cudaSuccess;
  if (stream == nullptr) {  // the default stream would wait for the captured one
    invalidate_capture();
    return cudaErrorStreamCaptureImplicit;
  }
  if (!is_captured(stream)) return cudaSuccess;
  if (capture.status == cudaStreamCaptureStatusInvalidated) return cudaErrorStreamCaptureInvalidated;
  ++capture.nodes;
  return cudaSuccess;
}

}  // namespace recorder

extern "C" {

cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned, int) {
  RECORD();
  return make(stream);
}
cudaError_t cudaStreamDestroy(cudaStream_t) {
  RECORD();
  return cudaSuccess;
}
cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  RECORD();
  return *least = 0, *greatest = -5, cudaSuccess;
}
cudaError_t cudaStreamGetPriority(cudaStream_t, int* priority) {
  RECORD();
  return *priority = 0, cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t) {
  RECORD();
  return cudaSuccess;
}
cudaError_t cudaStreamQuery(cudaStream_t) {
  RECORD();
  return cudaSuccess;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned) {
  RECORD();
  return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  RECORD();
  return make(event);
}
cudaError_t cudaEventRecord(cudaEvent_t, cudaStream_t) {
  RECORD();
  return cudaSuccess;
}
cudaError_t cudaEventRecordWithFlags(cudaEvent_t, cudaStream_t, unsigned) {
  RECORD();
  return cudaSuccess;
}
cudaError_t cudaEventQuery(cudaEvent_t) {
  RECORD();
  return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t) {
  RECORD();
  return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t) {
  RECORD();
  return cudaSuccess;
}

// --- capture ---------------------------------------------------------------------------------------------------------

cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode* with) {
  RECORD();
  std::swap(mode, *with);
  return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  RECORD();
  if (stream == nullptr) return RESULT(cudaErrorStreamCaptureUnsupported);
  if (recorder::capturing()) return RESULT(cudaErrorIllegalState);
  capture = {stream, cudaStreamCaptureStatusActive, 0, capture.id + 1};
  return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  RECORD();
  if (!is_captured(stream)) return RESULT(cudaErrorIllegalState);
  const bool valid = capture.status == cudaStreamCaptureStatusActive;
  capture.status = cudaStreamCaptureStatusNone;
  nodes_of_last_graph = capture.nodes;
  if (!valid) return *graph = nullptr, RESULT(cudaErrorStreamCaptureInvalidated);
  return make(graph);
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  RECORD();
  return *status = is_captured(stream) ? capture.status : cudaStreamCaptureStatusNone, cudaSuccess;
}

cudaError_t cudaStreamGetCaptureInfo(cudaStream_t stream, cudaStreamCaptureStatus* status, unsigned long long* id,
                                     cudaGraph_t* graph, const cudaGraphNode_t** dependencies,
                                     const cudaGraphEdgeData** edges, size_t* count) {
  RECORD();
  *status = is_captured(stream) ? capture.status : cudaStreamCaptureStatusNone;
  if (id != nullptr) *id = capture.id;
  if (graph != nullptr) *graph = nullptr;
  if (dependencies != nullptr) *dependencies = nullptr;
  if (edges != nullptr) *edges = nullptr;
  if (count != nullptr) *count = 0;
  return cudaSuccess;
}

cudaError_t cudaGraphGetNodes(cudaGraph_t, cudaGraphNode_t*, size_t* count) {
  RECORD();
  return *count = nodes_of_last_graph, cudaSuccess;
}
cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t* executable, cudaGraph_t, unsigned long long) {
  RECORD();
  return make(executable);
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t, unsigned long long) {
  RECORD();
  return make(executable);
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t, cudaStream_t stream) {
  RECORD();
  return RESULT(recorder::enqueued(stream));
}
cudaError_t cudaGraphDestroy(cudaGraph_t) {
  RECORD();
  return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t) {
  RECORD();
  return cudaSuccess;
}
}
