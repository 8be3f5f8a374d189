/* Creates and destroys the delegate for LarqRepDelegate.java. Nothing here needs a symbol of TFLite. */
#include <jni.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "tflite.h"

TfLiteDelegate *tflite_plugin_create_delegate(const char *const *keys, const char *const *values, size_t count,
                                              void (*report_error)(const char *));
void tflite_plugin_destroy_delegate(TfLiteDelegate *delegate);

/* report_error has no argument for a context. LarqRepDelegate.create is synchronized, so one text is enough. */
static char message[512];

static void report_error(const char *text) {
  const size_t length = strlen(text), most = sizeof message - 1;
  memcpy(message, text, length < most ? length : most);
  message[length < most ? length : most] = 0;
}

static void throw_new(JNIEnv *env, const char *type, const char *text) {
  jclass class = (*env)->FindClass(env, type);
  if (!class) return; /* FindClass has thrown */
  (*env)->ThrowNew(env, class, text);
  (*env)->DeleteLocalRef(env, class);
}

/* Copies element i to memory of our own, so that no string of Java's is held; NULL stays NULL. */
static bool copy_element(JNIEnv *env, jobjectArray strings, jsize i, char **copy) {
  jstring string = (*env)->GetObjectArrayElement(env, strings, i);
  if ((*env)->ExceptionCheck(env)) return false;
  if (!string) return true;
  const size_t bytes = (size_t)(*env)->GetStringUTFLength(env, string);
  *copy = malloc(bytes + 1);
  if (*copy) {
    (*env)->GetStringUTFRegion(env, string, 0, (*env)->GetStringLength(env, string), *copy);
    (*copy)[bytes] = 0;
  }
  (*env)->DeleteLocalRef(env, string);
  return *copy != NULL;
}

JNIEXPORT jlong JNICALL Java_com_larqrep_runtime_LarqRepDelegate_create(JNIEnv *env, jclass type, jobjectArray keys,
                                                                        jobjectArray values) {
  (void)type;
  const jsize count = (*env)->GetArrayLength(env, keys);
  char **texts = calloc(2 * (size_t)count + 1, sizeof *texts); /* keys, then values */
  bool copied = texts != NULL;
  for (jsize i = 0; i < count && copied; i++)
    copied = copy_element(env, keys, i, &texts[i]) && copy_element(env, values, i, &texts[count + i]);
  TfLiteDelegate *delegate = NULL;
  message[0] = 0;
  if (copied) {
    const char *const *options = (const void *)texts;
    delegate = tflite_plugin_create_delegate(options, options + count, (size_t)count, report_error);
    if (!delegate) throw_new(env, "java/lang/IllegalArgumentException", message);
  } else if (!(*env)->ExceptionCheck(env)) {
    throw_new(env, "java/lang/OutOfMemoryError", "larq-rep: no memory.");
  }
  for (jsize i = 0; texts && i < 2 * count; i++) free(texts[i]);
  free(texts);
  return (jlong)(intptr_t)delegate;
}

JNIEXPORT void JNICALL Java_com_larqrep_runtime_LarqRepDelegate_destroy(JNIEnv *env, jclass type, jlong handle) {
  (void)env;
  (void)type;
  tflite_plugin_destroy_delegate((TfLiteDelegate *)(intptr_t)handle);
}
