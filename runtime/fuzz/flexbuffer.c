/* libFuzzer: bytes of any kind as the options of an operator. */
#include "../src/flexbuffer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static const char *const keys[] = {"channels_in", "padding", "stride_width", ""};
  int64_t value;
  for (int i = 0; i < 4; i++) flexbuffer_int(data, size, keys[i], &value);
  return 0;
}
