/* Runs a network with an app's libraries, through TFLite's C API and the delegate's JNI library, on glibc and the shim:
 *   run MODEL INPUT OUTPUT [KEY=VALUE...]   options of the delegate; delegate=none leaves it out
 *   run cycles N                            creates and destroys N delegates, and says what memory that took
 * INPUT and OUTPUT are the bytes of all input and output tensors. The JNI library sees an environment of this program,
 * which counts the references that are not given back: no Java runs here, so this also works under emulation. */
#include <dlfcn.h>
#include <jni.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Of TFLite's C API; its own header includes one that the AAR lacks. */
typedef struct TfLiteModel TfLiteModel;
typedef struct TfLiteInterpreterOptions TfLiteInterpreterOptions;
typedef struct TfLiteInterpreter TfLiteInterpreter;
typedef struct TfLiteTensor TfLiteTensor;
TfLiteModel *TfLiteModelCreate(const void *content, size_t bytes);
void TfLiteModelDelete(TfLiteModel *model);
TfLiteInterpreterOptions *TfLiteInterpreterOptionsCreate(void);
void TfLiteInterpreterOptionsDelete(TfLiteInterpreterOptions *options);
void TfLiteInterpreterOptionsSetNumThreads(TfLiteInterpreterOptions *options, int32_t count);
void TfLiteInterpreterOptionsSetErrorReporter(TfLiteInterpreterOptions *options,
                                              void (*report)(void *, const char *, va_list), void *data);
void TfLiteInterpreterOptionsAddDelegate(TfLiteInterpreterOptions *options, void *delegate);
TfLiteInterpreter *TfLiteInterpreterCreate(const TfLiteModel *model, const TfLiteInterpreterOptions *options);
void TfLiteInterpreterDelete(TfLiteInterpreter *interpreter);
int TfLiteInterpreterAllocateTensors(TfLiteInterpreter *interpreter);
int TfLiteInterpreterInvoke(TfLiteInterpreter *interpreter);
int32_t TfLiteInterpreterGetInputTensorCount(const TfLiteInterpreter *interpreter);
TfLiteTensor *TfLiteInterpreterGetInputTensor(const TfLiteInterpreter *interpreter, int32_t i);
int32_t TfLiteInterpreterGetOutputTensorCount(const TfLiteInterpreter *interpreter);
const TfLiteTensor *TfLiteInterpreterGetOutputTensor(const TfLiteInterpreter *interpreter, int32_t i);
size_t TfLiteTensorByteSize(const TfLiteTensor *tensor);
int TfLiteTensorCopyFromBuffer(TfLiteTensor *tensor, const void *data, size_t bytes);
void *TfLiteTensorData(const TfLiteTensor *tensor);

#ifdef __aarch64__
/* Android's code reads its stack guard 40 bytes behind the thread pointer: here that is in the program's first 64 bytes
 * of thread-local storage, so nothing else may be there. */
_Thread_local char stack_guard[64] __attribute__((aligned(16), used)) = {1};
#endif

enum { MOST_OPTIONS = 8 };

static _Noreturn void fail(const char *what, const char *text) {
  fprintf(stderr, "%s: %s\n", what, text);
  exit(1);
}

/* ---- A Java environment of just what the JNI library calls ---- */

struct object {
  const char *text;     /* of a string or a class */
  const char **strings; /* of an array */
  int count;
};

static int references;
static char exception[600];

static jobject new_reference(const char *text) {
  struct object *object = calloc(1, sizeof *object);
  if (!object) fail("run", "no memory");
  object->text = text;
  references++;
  return (jobject)object;
}
static jclass JNICALL find_class(JNIEnv *env, const char *name) {
  (void)env;
  return new_reference(name);
}
static jint JNICALL throw_new(JNIEnv *env, jclass class, const char *text) {
  (void)env;
  snprintf(exception, sizeof exception, "%s: %s", ((struct object *)class)->text, text);
  return 0;
}
static jboolean JNICALL exception_check(JNIEnv *env) {
  (void)env;
  return exception[0] != 0;
}
static void JNICALL delete_reference(JNIEnv *env, jobject object) {
  (void)env;
  references--;
  free(object);
}
static jsize JNICALL array_length(JNIEnv *env, jarray array) {
  (void)env;
  return ((struct object *)array)->count;
}
static jobject JNICALL array_element(JNIEnv *env, jobjectArray array, jsize i) {
  (void)env;
  return new_reference(((struct object *)array)->strings[i]);
}
static jsize JNICALL string_length(JNIEnv *env, jstring string) {
  (void)env;
  return (jsize)strlen(((struct object *)string)->text);
}
static void JNICALL string_region(JNIEnv *env, jstring string, jsize start, jsize length, char *text) {
  (void)env;
  memcpy(text, ((struct object *)string)->text + start, (size_t)length);
}

static const struct JNINativeInterface_ functions = {
    .FindClass = find_class,
    .ThrowNew = throw_new,
    .ExceptionCheck = exception_check,
    .DeleteLocalRef = delete_reference,
    .GetArrayLength = array_length,
    .GetObjectArrayElement = array_element,
    .GetStringLength = string_length,
    .GetStringUTFLength = string_length,
    .GetStringUTFRegion = string_region,
};
static JNIEnv environment = &functions;

static void *symbol(void *library, const char *name) {
  void *found = dlsym(library, name);
  if (!found) fail(name, dlerror());
  return found;
}

static jlong (*create)(JNIEnv *, jclass, jobjectArray, jobjectArray);
static void (*destroy)(JNIEnv *, jclass, jlong);

static void load_delegate(void) {
  if (!dlopen("liblarq_rep_delegate.so", RTLD_NOW)) fail("liblarq_rep_delegate.so", dlerror());
  void *library = dlopen("liblarq_rep_jni.so", RTLD_NOW);
  if (!library) fail("liblarq_rep_jni.so", dlerror());
  create = (jlong (*)(JNIEnv *, jclass, jobjectArray, jobjectArray))symbol(
      library, "Java_com_larqrep_runtime_LarqRepDelegate_create");
  destroy = (void (*)(JNIEnv *, jclass, jlong))symbol(library, "Java_com_larqrep_runtime_LarqRepDelegate_destroy");
}

/* ---- One network ---- */

static char *read_all(const char *path, size_t *bytes) {
  FILE *file = fopen(path, "rb");
  if (!file || fseek(file, 0, SEEK_END)) fail(path, "cannot be read");
  *bytes = (size_t)ftell(file);
  rewind(file);
  char *content = malloc(*bytes + 1);
  if (!content || fread(content, 1, *bytes, file) != *bytes) fail(path, "cannot be read");
  fclose(file);
  return content;
}

static void report(void *data, const char *format, va_list arguments) {
  (void)data;
  vfprintf(stderr, format, arguments);
  fputc('\n', stderr);
}

static void run(void *tflite, const char *const *paths, jlong delegate, int num_threads) {
#define API(name) __typeof__(&name) name##_ = (__typeof__(&name))symbol(tflite, #name)
  API(TfLiteModelCreate);
  API(TfLiteModelDelete);
  API(TfLiteInterpreterOptionsCreate);
  API(TfLiteInterpreterOptionsDelete);
  API(TfLiteInterpreterOptionsSetNumThreads);
  API(TfLiteInterpreterOptionsSetErrorReporter);
  API(TfLiteInterpreterOptionsAddDelegate);
  API(TfLiteInterpreterCreate);
  API(TfLiteInterpreterDelete);
  API(TfLiteInterpreterAllocateTensors);
  API(TfLiteInterpreterInvoke);
  API(TfLiteInterpreterGetInputTensorCount);
  API(TfLiteInterpreterGetInputTensor);
  API(TfLiteInterpreterGetOutputTensorCount);
  API(TfLiteInterpreterGetOutputTensor);
  API(TfLiteTensorByteSize);
  API(TfLiteTensorCopyFromBuffer);
  API(TfLiteTensorData);
#undef API
  size_t model_bytes, input_bytes;
  char *content = read_all(paths[0], &model_bytes), *input = read_all(paths[1], &input_bytes);
  TfLiteModel *model = TfLiteModelCreate_(content, model_bytes);
  if (!model) fail(paths[0], "not a TFLite model");
  TfLiteInterpreterOptions *options = TfLiteInterpreterOptionsCreate_();
  TfLiteInterpreterOptionsSetErrorReporter_(options, report, NULL);
  TfLiteInterpreterOptionsSetNumThreads_(options, num_threads);
  if (delegate) TfLiteInterpreterOptionsAddDelegate_(options, (void *)(intptr_t)delegate);
  TfLiteInterpreter *interpreter = TfLiteInterpreterCreate_(model, options);
  if (!interpreter || TfLiteInterpreterAllocateTensors_(interpreter)) fail(paths[0], "cannot be prepared");
  size_t used = 0;
  for (int i = 0; i < TfLiteInterpreterGetInputTensorCount_(interpreter); i++) {
    TfLiteTensor *tensor = TfLiteInterpreterGetInputTensor_(interpreter, i);
    const size_t bytes = TfLiteTensorByteSize_(tensor);
    if (used + bytes > input_bytes) fail(paths[1], "is too short");
    if (TfLiteTensorCopyFromBuffer_(tensor, input + used, bytes)) fail(paths[1], "does not fit");
    used += bytes;
  }
  if (used != input_bytes) fail(paths[1], "is too long");
  if (TfLiteInterpreterInvoke_(interpreter)) fail(paths[0], "does not run");
  FILE *file = fopen(paths[2], "wb");
  if (!file) fail(paths[2], "cannot be written");
  for (int i = 0; i < TfLiteInterpreterGetOutputTensorCount_(interpreter); i++) {
    const TfLiteTensor *tensor = TfLiteInterpreterGetOutputTensor_(interpreter, i);
    fwrite(TfLiteTensorData_(tensor), 1, TfLiteTensorByteSize_(tensor), file);
  }
  if (fclose(file)) fail(paths[2], "cannot be written");
  TfLiteInterpreterDelete_(interpreter);
  TfLiteInterpreterOptionsDelete_(options);
  TfLiteModelDelete_(model);
  free(content);
  free(input);
}

static long resident_kib(void) {
  long pages = 0;
  FILE *file = fopen("/proc/self/statm", "r");
  if (!file || fscanf(file, "%*d %ld", &pages) != 1) fail("/proc/self/statm", "cannot be read");
  fclose(file);
  return pages * (sysconf(_SC_PAGESIZE) / 1024);
}

static void cycle(long count) {
  const char *keys[] = {"num_threads", "fuse"}, *values[] = {"2", "1"}, *wrong[] = {"65", "1"};
  struct object names = {.strings = keys, .count = 2}, good = {.strings = values, .count = 2},
                bad = {.strings = wrong, .count = 2};
  long before = 0;
  for (long i = -count / 4; i < count; i++) { /* the first quarter fills the allocator's caches */
    if (i == 0) before = resident_kib();
    destroy(&environment, NULL, create(&environment, NULL, (jobjectArray)&names, (jobjectArray)&good));
    if (exception[0]) fail("create", exception);
    if (create(&environment, NULL, (jobjectArray)&names, (jobjectArray)&bad)) fail("create", "took 65 threads");
    exception[0] = 0;
  }
  printf("%ld KiB more\n", resident_kib() - before);
}

int main(int argc, char **argv) {
  load_delegate();
  if (argc == 3 && strcmp(argv[1], "cycles") == 0) {
    cycle(strtol(argv[2], NULL, 10));
  } else if (argc >= 4 && argc <= 4 + MOST_OPTIONS) {
    void *tflite = dlopen("libtensorflowlite_jni.so", RTLD_NOW);
    if (!tflite) fail("libtensorflowlite_jni.so", dlerror());
    const char *keys[MOST_OPTIONS], *values[MOST_OPTIONS];
    int count = 0, num_threads = 1;
    bool with_delegate = true;
    for (int i = 4; i < argc; i++) {
      char *value = strchr(argv[i], '=');
      if (!value) fail(argv[i], "should be KEY=VALUE");
      *value++ = 0;
      if (strcmp(argv[i], "num_threads") == 0) num_threads = (int)strtol(value, NULL, 10);
      if (strcmp(argv[i], "delegate") == 0) {
        with_delegate = strcmp(value, "none") != 0;
        continue;
      }
      keys[count] = argv[i];
      values[count++] = value;
    }
    struct object names = {.strings = keys, .count = count}, texts = {.strings = values, .count = count};
    jlong delegate = 0;
    if (with_delegate) delegate = create(&environment, NULL, (jobjectArray)&names, (jobjectArray)&texts);
    if (exception[0]) fail("exception", exception);
    /* Twice, one after the other, with one delegate. */
    for (int i = 0; i < 2; i++) run(tflite, (const char *const *)argv + 1, delegate, num_threads);
    destroy(&environment, NULL, delegate);
  } else {
    fail("usage", "run MODEL INPUT OUTPUT [KEY=VALUE...] | run cycles N");
  }
  printf("%d references left\n", references);
  return references != 0;
}
