// The one question that PyTorch asks the driver itself: whether a device has been used. Built as libcuda.so.1.
extern "C" int cuDevicePrimaryCtxGetState(int, unsigned* flags, int* active) {
  *flags = 0;
  *active = 1;
  return 0;
}
