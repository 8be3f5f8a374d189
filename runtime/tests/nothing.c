/* A delegate that takes LCE's operators and does nothing. What crashes with it, too, is the runtime's own fault. */
#include <stdlib.h>
#include <string.h>

#include "../src/tflite.h"

static void *init(TfLiteContext *context, const char *buffer, size_t length) {
  (void)context, (void)buffer, (void)length;
  return NULL;
}

static void release(TfLiteContext *context, void *buffer) { (void)context, (void)buffer; }

static TfLiteStatus prepare(TfLiteContext *context, TfLiteNode *node) {
  for (int i = 0; i < node->outputs->size; i++) {
    TfLiteTensor *tensor = &context->tensors[node->outputs->data[i]];
    if (!tensor->dims) return kTfLiteError;
    const size_t bytes = sizeof(TfLiteIntArray) + (size_t)tensor->dims->size * sizeof(int);
    TfLiteIntArray *dims = malloc(bytes);
    if (!dims) return kTfLiteError;
    memcpy(dims, tensor->dims, bytes);
    if (context->ResizeTensor(context, tensor, dims) != kTfLiteOk) return kTfLiteError;
  }
  return kTfLiteOk;
}

static TfLiteStatus invoke(TfLiteContext *context, TfLiteNode *node) {
  for (int i = 0; i < node->outputs->size; i++) {
    TfLiteTensor *tensor = &context->tensors[node->outputs->data[i]];
    if (tensor->data.data) memset(tensor->data.data, 0, tensor->bytes);
  }
  return kTfLiteOk;
}

static TfLiteStatus take(TfLiteContext *context, TfLiteDelegate *delegate) {
  const TfLiteRegistration registration = {.init = init,
                                           .free = release,
                                           .prepare = prepare,
                                           .invoke = invoke,
                                           .builtin_code = kTfLiteBuiltinDelegate,
                                           .custom_name = "Nothing"};
  TfLiteIntArray *plan;
  if (context->GetExecutionPlan(context, &plan) != kTfLiteOk) return kTfLiteError;
  TfLiteIntArray *nodes = malloc(sizeof *nodes + (size_t)plan->size * sizeof(int));
  if (!nodes) return kTfLiteError;
  nodes->size = 0;
  for (int i = 0; i < plan->size; i++) {
    TfLiteNode *node;
    TfLiteRegistration *found;
    if (context->GetNodeAndRegistration(context, plan->data[i], &node, &found) != kTfLiteOk) continue;
    if (found->builtin_code == kTfLiteBuiltinCustom && found->custom_name && !strncmp(found->custom_name, "Lce", 3))
      nodes->data[nodes->size++] = plan->data[i];
  }
  const TfLiteStatus status = context->ReplaceNodeSubsetsWithDelegateKernels(context, registration, nodes, delegate);
  free(nodes);
  return status;
}

__attribute__((visibility("default"))) TfLiteDelegate *tflite_plugin_create_delegate(const char *const *keys,
                                                                                     const char *const *values,
                                                                                     size_t count,
                                                                                     void (*report)(const char *)) {
  (void)keys, (void)values, (void)count, (void)report;
  TfLiteDelegate *delegate = calloc(1, sizeof *delegate);
  if (!delegate) return NULL;
  delegate->Prepare = take;
  delegate->flags = kTfLiteDelegateFlagsAllowDynamicTensors;
  return delegate;
}

__attribute__((visibility("default"))) void tflite_plugin_destroy_delegate(TfLiteDelegate *delegate) { free(delegate); }
