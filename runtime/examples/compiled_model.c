/* Runs a network of one float input and output on LiteRT's CompiledModel: compiled_model FILE < input > output
 *   cc compiled_model.c -L$RUNTIME -l:liblarq_rep_delegate.so -L$LITERT -lLiteRt -ldl */
#include <dlfcn.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

bool larq_rep_litert_install(void *library);

/* As LiteRT's headers declare them (litert/c/litert_*.h). */
typedef struct {
  unsigned rank : 7, has_strides : 1;
  int32_t dims[8];
  uint32_t strides[8];
} LiteRtLayout;
typedef struct {
  int element_type; /* 1 is float32 */
  LiteRtLayout layout;
} LiteRtRankedTensorType;
int LiteRtCreateEnvironment(int count, const void *options, void **environment);
int LiteRtCreateModelFromFile(void *environment, const char *path, void **model);
int LiteRtCreateOptions(void **options);
int LiteRtSetOptionsHardwareAccelerators(void *options, int accelerators); /* 1 is the CPU */
int LiteRtCreateCompiledModel(void *environment, void *model, void *options, void **compiled);
int LiteRtGetCompiledModelInputTensorLayout(void *compiled, size_t signature, size_t index, LiteRtLayout *layout);
int LiteRtGetCompiledModelOutputTensorLayouts(void *compiled, size_t signature, size_t count, LiteRtLayout *layouts,
                                              bool update);
int LiteRtCreateTensorBufferFromHostMemory(const LiteRtRankedTensorType *type, void *memory, size_t bytes,
                                           void (*free)(void *), void **buffer);
int LiteRtRunCompiledModel(void *compiled, size_t signature, size_t inputs, void **input, size_t outputs,
                           void **output);

static void check(bool fine, const char *what) {
  if (!fine) exit((fprintf(stderr, "compiled_model: %s\n", what), 1));
}

/* A buffer of LiteRT and its memory, which has to begin at a multiple of 64 bytes. */
static float *allocate(const LiteRtRankedTensorType *type, size_t *count, void **buffer) {
  *count = 1;
  for (unsigned i = 0; i < type->layout.rank; i++) *count *= (size_t)type->layout.dims[i];
  const size_t bytes = *count * sizeof(float);
  float *memory = aligned_alloc(64, (bytes + 63) / 64 * 64);
  check(memory && !LiteRtCreateTensorBufferFromHostMemory(type, memory, bytes, NULL, buffer), "no buffer");
  return memory;
}

int main(int count, char **arguments) {
  void *environment, *model, *options, *compiled, *input, *output;
  LiteRtRankedTensorType in = {.element_type = 1}, out = {.element_type = 1};
  size_t inputs, outputs;
  check(count == 2, "expected a .tflite file");
  check(larq_rep_litert_install(dlopen("libLiteRt.so", RTLD_NOW)), "LiteRT does not take the delegate");
  check(!LiteRtCreateEnvironment(0, NULL, &environment), "no environment");
  check(!LiteRtCreateModelFromFile(environment, arguments[1], &model), "no .tflite file");
  check(!LiteRtCreateOptions(&options) && !LiteRtSetOptionsHardwareAccelerators(options, 1), "no options");
  check(!LiteRtCreateCompiledModel(environment, model, options, &compiled), "LiteRT does not run the file");
  check(!LiteRtGetCompiledModelInputTensorLayout(compiled, 0, 0, &in.layout), "no input");
  check(!LiteRtGetCompiledModelOutputTensorLayouts(compiled, 0, 1, &out.layout, true), "no output");
  float *x = allocate(&in, &inputs, &input), *y = allocate(&out, &outputs, &output);
  check(fread(x, sizeof *x, inputs, stdin) == inputs, "the input is too short");
  check(!LiteRtRunCompiledModel(compiled, 0, 1, &input, 1, &output), "LiteRT fails");
  check(fwrite(y, sizeof *y, outputs, stdout) == outputs, "the output cannot be written");
  return 0;
}
