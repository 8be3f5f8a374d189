/* The delegate as an accelerator of LiteRT, which gives it to every CompiledModel.
 *
 * LiteRT asks its accelerators for delegates in the order in which it found them. Ours takes the GPU's place, before
 * XNNPACK: behind it, the neighbours of LCE's operators would be taken already, and more than half of the speed lost.
 * LiteRT finds it by the name of its file, libLiteRtGpuAccelerator.so in the folder of the runtime, or by
 * larq_rep_litert_install.
 *
 * LiteRT keeps this interface for its own accelerators. Since LiteRT 2.2 its tables begin with their size and version
 * and, within a major version, only grow. Before, the definition begins with a number and the table of functions with
 * nothing: of these only 2.1.6 is known. Everything else is refused. */
#ifndef __ANDROID__ /* untried there */
#include <dlfcn.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "partition.h"
#include "plugin.h"

/* ---- LiteRT's types ---- */

typedef enum {
  kLiteRtStatusOk = 0,
  kLiteRtStatusErrorInvalidArgument = 1,
  kLiteRtStatusErrorUnsupported = 8
} LiteRtStatus;

enum { kLiteRtHwAcceleratorCpu = 1 };
enum { kLiteRtAnyTypeString = 8 };

struct header {
  uint16_t size, major, minor, patch;
};

typedef struct {
  int type;
  const void *value;
} LiteRtAny;

/* LiteRtRuntimeContext: LiteRT's functions, which libraries of its Python wheels do not export. */
struct functions {
  void *buffers[9];
  LiteRtStatus (*get_opaque_options)(void *options, void **opaque_options);
  LiteRtStatus (*find_opaque_options_data)(void *opaque_options, const char *identifier, void **data);
  void *destroy_options;
  LiteRtStatus (*get_environment_options)(void *environment, void **options);
  LiteRtStatus (*get_environment_options_value)(void *options, int tag, LiteRtAny *value);
  void *environments[3];
  LiteRtStatus (*wrap_delegate)(TfLiteDelegate *delegate, void (*destroy)(TfLiteDelegate *), void **wrapper);
};

struct runtime {
  struct header header;
  struct functions functions;
};

/* LiteRtAcceleratorDefV1. */
struct definition {
  struct header header; /* in LiteRT 2.1.6 an int, 1, and padding */
  LiteRtStatus (*get_name)(const void *accelerator, const char **name);
  LiteRtStatus (*get_version)(const void *accelerator, int version[3]);
  LiteRtStatus (*get_hardware)(const void *accelerator, int *hardware);
  LiteRtStatus (*is_responsible_for_jit)(const void *accelerator, bool *responsible);
  LiteRtStatus (*create_delegate)(const void *runtime, void *environment, const void *accelerator, void *options,
                                  void **wrapper);
  void *metrics[2];
  void *tensor_buffers[17]; /* all 0: none but the host's memory */
};

#if UINTPTR_MAX == UINT64_MAX
static_assert(sizeof(struct definition) == 200, "LiteRtAcceleratorDefV1");
static_assert(offsetof(struct definition, create_delegate) == 40, "LiteRtAcceleratorDefV1");
static_assert(offsetof(struct runtime, functions.find_opaque_options_data) == 88, "LiteRtRuntimeContext");
static_assert(offsetof(struct runtime, functions.wrap_delegate) == 144, "LiteRtRuntimeContext");
static_assert(sizeof(LiteRtAny) == 16, "LiteRtAny");
#endif

/* ---- Options ---- */

enum { MAX_OPTIONS = 8, MAX_TEXT = 1024 };

static void report(const char *message) { fprintf(stderr, "%s\n", message); }

/* Options as LiteRT writes them: "key = value", with one of the separators between them. */
struct text {
  char characters[MAX_TEXT]; /* the keys' and values' */
  const char *keys[MAX_OPTIONS], *values[MAX_OPTIONS];
  size_t count;
};

static char *trim(char *word) {
  word += strspn(word, " ");
  for (size_t length = strlen(word); length && word[length - 1] == ' '; length--) word[length - 1] = '\0';
  return word;
}

/* Only the first options, if there are more than fit. */
static void read_text(struct text *text, const char *from, const char *separators) {
  text->count = 0;
  snprintf(text->characters, sizeof text->characters, "%s", from);
  char *rest = text->characters, *option;
  while (text->count < MAX_OPTIONS && (option = strtok_r(rest, separators, &rest))) {
    char *equals = strchr(option, '=');
    if (equals) *equals = '\0';
    text->keys[text->count] = trim(option);
    text->values[text->count++] = equals ? trim(equals + 1) : NULL;
  }
}

/* The options of larq_rep_runtime.litert_environment, which are in the name of the environment's folder. False if
 * LiteRT does not say which that is. */
static bool read_environment(const struct functions *functions, void *environment, struct text *text) {
  enum { RUNTIME_FOLDER = 22 }; /* kLiteRtEnvOptionTagRuntimeLibraryDir */
  static const char own[] = "larq_rep";
  void *options;
  LiteRtAny value;
  text->count = 0;
  if (functions->get_environment_options(environment, &options) != kLiteRtStatusOk ||
      functions->get_environment_options_value(options, RUNTIME_FOLDER, &value) != kLiteRtStatusOk ||
      value.type != kLiteRtAnyTypeString || !value.value)
    return false;
  const char *folder = strrchr(value.value, '/');
  folder = folder ? folder + 1 : value.value;
  if (strncmp(folder, own, sizeof own - 1) == 0) read_text(text, folder + sizeof own - 1, ",");
  return true;
}

/* The number of threads of CompiledModel's CPU options, or 0. LiteRT gives it to XNNPACK only. */
static int cpu_threads(const struct functions *functions, void *options) {
  void *all, *data;
  if (functions->get_opaque_options(options, &all) != kLiteRtStatusOk ||
      functions->find_opaque_options_data(all, "xnnpack", &data) != kLiteRtStatusOk || !data)
    return 0;
  struct text text;
  read_text(&text, data, "\n");
  for (size_t i = 0; i < text.count; i++)
    if (strcmp(text.keys[i], "num_threads") == 0 && text.values[i]) {
      const long threads = strtol(text.values[i], NULL, 10);
      return threads < 0 ? 0 : threads > MAX_THREADS ? MAX_THREADS : (int)threads;
    }
  return 0;
}

/* ---- The definition ---- */

static atomic_uint asked;

/* An environment asks this when it takes the accelerator, and when it ends. */
static LiteRtStatus get_name(const void *accelerator, const char **name) {
  (void)accelerator;
  atomic_fetch_add(&asked, 1);
  *name = "LarqRepAccelerator";
  return kLiteRtStatusOk;
}

static LiteRtStatus get_version(const void *accelerator, int version[3]) {
  (void)accelerator;
  memcpy(version, (const int[]){0, 2, 0}, 3 * sizeof *version);
  return kLiteRtStatusOk;
}

static LiteRtStatus get_hardware(const void *accelerator, int *hardware) {
  (void)accelerator;
  *hardware = kLiteRtHwAcceleratorCpu;
  return kLiteRtStatusOk;
}

static LiteRtStatus is_responsible_for_jit(const void *accelerator, bool *responsible) {
  (void)accelerator;
  *responsible = false;
  return kLiteRtStatusOk;
}

/* By larq_rep_litert_install, which needs no folder. */
static atomic_bool installed;

static LiteRtStatus create(const struct functions *functions, void *environment, void *options, void **wrapper) {
  struct text text;
  if (!read_environment(functions, environment, &text) && !atomic_load(&installed)) {
    report("larq-rep: LiteRT does not tell the folder of its runtime, with the options, as LiteRT 2.2 and 2.3 do.");
    return kLiteRtStatusErrorUnsupported;
  }
  TfLiteDelegate *delegate = tflite_plugin_create_delegate(text.keys, text.values, text.count, report);
  if (!delegate) return kLiteRtStatusErrorInvalidArgument;
  struct shared *shared = delegate->data_;
  if (shared->options.num_threads == 0) shared->options.num_threads = cpu_threads(functions, options);
  const LiteRtStatus status = functions->wrap_delegate(delegate, tflite_plugin_destroy_delegate, wrapper);
  if (status != kLiteRtStatusOk) tflite_plugin_destroy_delegate(delegate);
  return status;
}

static LiteRtStatus create_delegate(const void *table, void *environment, const void *accelerator, void *options,
                                    void **wrapper) {
  (void)accelerator;
  const struct runtime *runtime = table;
  const struct header *found = &runtime->header;
  if (found->major != 1 || found->size < sizeof *runtime) {
    fprintf(stderr,
            "larq-rep: the functions of this LiteRT are of version %d.%d.%d, in %d bytes; expected version 1 in at "
            "least %zu, as in LiteRT 2.2 and 2.3. Use one of these, or LiteRT's Interpreter.\n",
            found->major, found->minor, found->patch, found->size, sizeof *runtime);
    return kLiteRtStatusErrorUnsupported;
  }
  return create(&runtime->functions, environment, options, wrapper);
}

/* LiteRT's own function, by which the table of 2.1.6 is known. */
static _Atomic(void *) wrap_delegate_2_1_6;

static LiteRtStatus create_delegate_2_1_6(const void *table, void *environment, const void *accelerator, void *options,
                                          void **wrapper) {
  (void)accelerator;
  const struct functions *functions = table;
  if ((void *)functions->wrap_delegate != atomic_load(&wrap_delegate_2_1_6)) {
    report("larq-rep: the functions of this LiteRT 2.1 are not those of 2.1.6. Use that one, or LiteRT 2.2 or 2.3.");
    return kLiteRtStatusErrorUnsupported;
  }
  return create(functions, environment, options, wrapper);
}

EXPORT const struct definition LiteRtAcceleratorImpl;

const struct definition LiteRtAcceleratorImpl = {
    .header = {.size = sizeof(struct definition), .major = 1},
    .get_name = get_name,
    .get_version = get_version,
    .get_hardware = get_hardware,
    .is_responsible_for_jit = is_responsible_for_jit,
    .create_delegate = create_delegate,
};

static const struct definition definition_2_1_6 = {
    .header = {.size = 1},
    .get_name = get_name,
    .get_version = get_version,
    .get_hardware = get_hardware,
    .is_responsible_for_jit = is_responsible_for_jit,
    .create_delegate = create_delegate_2_1_6,
};

unsigned larq_rep_litert_asked(void) { return atomic_load(&asked); }

bool larq_rep_litert_install(void *library) {
  const struct definition *const *cpu = dlsym(library, "LiteRtStaticLinkedAcceleratorCpuDef");
  const struct definition **gpu = dlsym(library, "LiteRtStaticLinkedAcceleratorGpuDef");
  void *wrap_delegate = dlsym(library, "LiteRtWrapDelegate");
  if (!cpu || !*cpu || !gpu || !wrap_delegate) {
    report("larq-rep: the library has no place for an accelerator; expected libLiteRt.so of LiteRT 2.1.6, 2.2 or 2.3.");
    return false;
  }
  const struct header *found = &(*cpu)->header;
  const struct definition *ours = NULL;
  if (found->major == 1 && found->size >= sizeof **cpu) ours = &LiteRtAcceleratorImpl;
  /* 2.1.4 and 2.1.5 have the number of 2.1.6, but a function more. */
  if (memcmp(found, &definition_2_1_6.header, sizeof *found) == 0 && !(*cpu)->metrics[0]) ours = &definition_2_1_6;
  if (!ours) {
    fprintf(
        stderr,
        "larq-rep: this LiteRT defines accelerators by version %d.%d.%d, in %d bytes; expected version 1 in at least "
        "%zu, as in LiteRT 2.2 and 2.3, or the definition of 2.1.6. Use one of these, or LiteRT's Interpreter.\n",
        found->major, found->minor, found->patch, found->size, sizeof **cpu);
    return false;
  }
  if (*gpu && *gpu != ours) {
    report("larq-rep: this program has a GPU accelerator, whose place the delegate needs. Leave one of them out.");
    return false;
  }
  if (ours == &definition_2_1_6) atomic_store(&wrap_delegate_2_1_6, wrap_delegate);
  atomic_store(&installed, true);
  *gpu = ours;
  return true;
}
#endif
