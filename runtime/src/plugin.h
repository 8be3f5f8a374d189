/* What the library exports. */
#ifndef LARQ_REP_PLUGIN_H
#define LARQ_REP_PLUGIN_H

#include "delegate.h"

#define EXPORT __attribute__((visibility("default")))

/* What TFLite and LiteRT's interpreter look for. */
EXPORT TfLiteDelegate *tflite_plugin_create_delegate(const char *const *keys, const char *const *values, size_t count,
                                                     void (*report_error)(const char *));
EXPORT void tflite_plugin_destroy_delegate(TfLiteDelegate *delegate);

/* For programs in C and C++: puts the delegate into every environment that LiteRT makes from now on. `library` is
 * libLiteRt.so as dlopen gives it. Returns false, after a message on standard error, if this LiteRT has no place for
 * it.
 */
EXPORT bool larq_rep_litert_install(void *library);
/* How often environments asked for the delegate's name, as each does when it takes it, and when it ends. */
EXPORT unsigned larq_rep_litert_asked(void);

#endif
