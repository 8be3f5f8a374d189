/* The two functions that TFLite and LiteRT look for in a delegate's library. */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "claim.h"
#include "partition.h"
#include "plan.h"
#include "plugin.h"
#include "profile.h"
#include "threads.h"

static void leave(struct shared *shared) {
  if (atomic_fetch_sub(&shared->users, 1) > 1) return;
  stop_threads(shared->threads);
  free(shared);
}

/* ---- The kernel of a partition ---- */

static void free_kernel(TfLiteContext *context, void *buffer) {
  (void)context;
  struct partition *partition = buffer;
  if (!partition) return;
  if (partition->options->profile && partition->plan) print_profile(partition);
  free_plan(partition->plan);
  free(partition->memory);
  free(partition->scratch);
  leave(partition->shared);
  free(partition);
}

static void *init_kernel(TfLiteContext *context, const char *buffer, size_t length) {
  (void)length;
  const TfLiteDelegateParams *params = (const void *)buffer;
  struct partition *partition = calloc(1, sizeof *partition);
  if (!partition) return NULL;
  partition->shared = params->delegate->data_;
  atomic_fetch_add(&partition->shared->users, 1);
  partition->options = &partition->shared->options;
  partition->plan = make_plan(context, params);
  return partition;
}

static TfLiteStatus prepare_kernel(TfLiteContext *context, TfLiteNode *node) {
  struct partition *partition = node->user_data;
  if (!partition || !partition->plan) {
    context->ReportError(context, "larq-rep: the delegate could not take over its part of the graph.");
    return kTfLiteError;
  }
  return prepare_partition(context, partition);
}

static TfLiteStatus invoke_kernel(TfLiteContext *context, TfLiteNode *node) {
  return invoke_partition(context, node->user_data);
}

static TfLiteStatus prepare_delegate(TfLiteContext *context, TfLiteDelegate *delegate) {
  const struct shared *shared = delegate->data_;
  TfLiteIntArray *nodes;
  TfLiteStatus status = claim(context, &shared->options, &nodes);
  if (status != kTfLiteOk) return status;
  if (nodes->size > 0) {
    const TfLiteRegistration registration = {
        .init = init_kernel,
        .free = free_kernel,
        .prepare = prepare_kernel,
        .invoke = invoke_kernel,
        .builtin_code = kTfLiteBuiltinDelegate,
        .custom_name = "LarqRepDelegate",
        .version = 1,
    };
    status = context->ReplaceNodeSubsetsWithDelegateKernels(context, registration, nodes, delegate);
  }
  free(nodes);
  return status;
}

/* ---- Options ---- */

static bool refuse_option(void (*report_error)(const char *), const char *format, const char *name, const char *value) {
  char message[512], implementations[128];
  list_kernels(implementations, sizeof implementations);
  snprintf(message, sizeof message, format, name, value, implementations);
  if (report_error) report_error(message);
  return false;
}

static bool parse_int(const char *text, int low, int high, int *value) {
  char *end;
  const long number = strtol(text, &end, 10);
  if (end == text || *end || number < low || number > high) return false;
  *value = (int)number;
  return true;
}

static bool parse_bool(const char *text, bool *value) {
  static const char *const words[] = {"0", "1", "false", "true", "False", "True"};
  for (size_t i = 0; i < sizeof words / sizeof *words; i++)
    if (strcmp(text, words[i]) == 0) {
      *value = i % 2;
      return true;
    }
  return false;
}

static bool set_option(struct options *options, const char *key, const char *value, void (*report)(const char *)) {
  if (!key || !value)
    return refuse_option(report, "larq-rep: an option has no %s%s.", key ? "value: " : "name", key ? key : "");
  if (strcmp(key, "implementation") == 0) {
    options->kernels = choose_kernels(value);
    const char *lack = options->kernels ? NULL : lack_of_kernels(value);
    if (lack)
      return refuse_option(report,
                           "larq-rep: option 'implementation': no '%s': %s. The implementations of this processor: %s.",
                           value, lack);
    return options->kernels ||
           refuse_option(report,
                         "larq-rep: option '%s': '%.60s' is not among the implementations of this processor: %s.", key,
                         value);
  }
  if (strcmp(key, "num_threads") == 0)
    return parse_int(value, 0, MAX_THREADS, &options->num_threads) ||
           refuse_option(report, "larq-rep: option '%s' should be 0 (the interpreter's number) to 64, found '%.60s'.",
                         key, value);
  if (strcmp(key, "cache_kb") == 0)
    return parse_int(value, 0, 1 << 20, &options->cache_kb) ||
           refuse_option(report, "larq-rep: option '%s' should be 0 (as the system tells) to 1048576, found '%.60s'.",
                         key, value);
  bool *flag = strcmp(key, "profile") == 0 ? &options->profile : strcmp(key, "fuse") == 0 ? &options->fuse : NULL;
  if (flag)
    return parse_bool(value, flag) ||
           refuse_option(report, "larq-rep: option '%s' should be 0 or 1, found '%.60s'.", key, value);
  return refuse_option(report,
                       "larq-rep: there is no option '%.60s' (with value '%.60s'); there are implementation, "
                       "num_threads, cache_kb, profile and fuse.",
                       key, value);
}

/* Options of the environment come first, so that the program's options win. */
static bool set_environment(struct options *options, void (*report)(const char *)) {
  static const char *const names[][2] = {{"LARQ_REP_IMPLEMENTATION", "implementation"},
                                         {"LARQ_REP_NUM_THREADS", "num_threads"},
                                         {"LARQ_REP_CACHE_KB", "cache_kb"},
                                         {"LARQ_REP_PROFILE", "profile"},
                                         {"LARQ_REP_FUSE", "fuse"}};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    const char *value = getenv(names[i][0]);
    if (value && *value && !set_option(options, names[i][1], value, report)) return false;
  }
  return true;
}

TfLiteDelegate *tflite_plugin_create_delegate(const char *const *keys, const char *const *values, size_t count,
                                              void (*report_error)(const char *)) {
  struct options options = {.kernels = choose_kernels(NULL), .fuse = true};
  if (!set_environment(&options, report_error)) return NULL;
  for (size_t i = 0; i < count; i++)
    if (!set_option(&options, keys[i], values[i], report_error)) return NULL;
  struct shared *shared = calloc(1, sizeof *shared);
  struct threads *threads = make_threads();
  if (!shared || !threads) {
    free(shared);
    stop_threads(threads);
    refuse_option(report_error, "larq-rep: no memory%s%s.", "", "");
    return NULL;
  }
  *shared = (struct shared){
      .delegate = {.data_ = shared,
                   .Prepare = prepare_delegate,
                   /* Exactly this: with other flags the runtime prepares unknown operators before it asks the delegate,
                    * and fails. */
                   .flags = kTfLiteDelegateFlagsAllowDynamicTensors},
      .options = options,
      .threads = threads,
      .users = 1,
  };
  return &shared->delegate;
}

void tflite_plugin_destroy_delegate(TfLiteDelegate *delegate) {
  if (delegate) leave(delegate->data_);
}
