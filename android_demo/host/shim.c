/* Answers, on glibc, for bionic's functions: libc.so of the same folder jumps to what shim_fill found for it.
 *
 * This library is linked to glibc only. A function shim_NAME below stands for NAME where glibc has none, or another
 * one: FILE, the numbers of sysconf, and the sizes and alignments of mutexes and conditions differ. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { FILE_BYTES = 152, STDIN = 0, STDOUT = 1, STDERR = 2 };

static char *android_files; /* three of FILE_BYTES, in libc.so */

void shim_fill(const char *names, void **slots, char *files);

static void *look_up(const char *name) {
  static const char *const libraries[] = {"libc.so.6", "libm.so.6"};
  char own[80];
  snprintf(own, sizeof own, "shim_%s", name);
  Dl_info here; /* this library, which may be loaded out of the sight of RTLD_DEFAULT */
  void *found = dladdr((void *)shim_fill, &here) ? dlsym(dlopen(here.dli_fname, RTLD_LAZY), own) : NULL;
  for (size_t i = 0; !found && i < sizeof libraries / sizeof *libraries; i++)
    found = dlsym(dlopen(libraries[i], RTLD_LAZY), name);
  return found;
}

void shim_fill(const char *names, void **slots, char *files) {
  android_files = files;
  for (; *names; names += strlen(names) + 1, slots++) {
    *slots = look_up(names);
    if (*slots) continue;
    fprintf(stderr, "shim: glibc has no %s, which an Android library imports. Add shim_%s to shim.c.\n", names, names);
    abort();
  }
}

/* ---- stdio: bionic's stdin, stdout and stderr are elements of an array; other files come from glibc's fopen ---- */

static FILE *file_of(void *file) {
  if ((char *)file == android_files + STDIN * FILE_BYTES) return stdin;
  if ((char *)file == android_files + STDOUT * FILE_BYTES) return stdout;
  if ((char *)file == android_files + STDERR * FILE_BYTES) return stderr;
  return file;
}

int shim_fclose(void *file) { return fclose(file_of(file)); }
int shim_fflush(void *file) { return fflush(file ? file_of(file) : NULL); }
int shim_fileno(void *file) { return fileno(file_of(file)); }
int shim_fputc(int c, void *file) { return fputc(c, file_of(file)); }
size_t shim_fread(void *data, size_t size, size_t count, void *file) { return fread(data, size, count, file_of(file)); }
size_t shim_fwrite(const void *data, size_t size, size_t count, void *file) {
  return fwrite(data, size, count, file_of(file));
}
int shim_vfprintf(void *file, const char *format, va_list arguments) {
  return vfprintf(file_of(file), format, arguments);
}
int shim_fprintf(void *file, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  const int written = vfprintf(file_of(file), format, arguments);
  va_end(arguments);
  return written;
}

/* ---- What else is called otherwise, or missing ---- */

long shim_sysconf(int name) {
  switch (name) {
    case 0x27:
    case 0x28:
      return sysconf(_SC_PAGESIZE);
    case 0x60:
      return sysconf(_SC_NPROCESSORS_CONF);
    case 0x61:
      return sysconf(_SC_NPROCESSORS_ONLN);
    default:
      errno = EINVAL;
      return -1;
  }
}

int *shim___errno(void) { return &errno; }

int __xpg_strerror_r(int number, char *text, size_t size);
int shim_strerror_r(int number, char *text, size_t size) { return __xpg_strerror_r(number, text, size); }

size_t shim___strlen_chk(const char *text, size_t size) {
  const size_t length = strlen(text);
  if (length >= size) abort();
  return length;
}

/* TFLite leaves XNNPACK out where this does not answer with a version of Android above 19. */
int shim___system_property_get(const char *name, char *value) {
  strcpy(value, strcmp(name, "ro.build.version.sdk") ? "" : "34");
  return (int)strlen(value);
}

void shim_android_set_abort_message(const char *text) { fprintf(stderr, "abort: %s\n", text); }

int shim___android_log_vprint(int priority, const char *tag, const char *format, va_list arguments) {
  char text[1024];
  vsnprintf(text, sizeof text, format, arguments);
  return fprintf(stderr, "%d %s: %s\n", priority, tag, text);
}

/* ---- Mutexes and conditions in the first word of bionic's, which is aligned to 4 bytes only ---- */

static void futex(atomic_int *word, int operation, int value) {
  syscall(SYS_futex, word, operation | FUTEX_PRIVATE_FLAG, value, NULL, NULL, 0);
}

/* 0: free; 1: held; 2: held, and perhaps somebody waits */
int shim_pthread_mutex_init(atomic_int *mutex, const void *attributes) {
  if (attributes) abort(); /* no library here asks for another kind */
  atomic_store(mutex, 0);
  return 0;
}
int shim_pthread_mutex_destroy(atomic_int *mutex) { return atomic_load(mutex) ? EBUSY : 0; }
int shim_pthread_mutex_trylock(atomic_int *mutex) {
  int unheld = 0;
  return atomic_compare_exchange_strong(mutex, &unheld, 1) ? 0 : EBUSY;
}
int shim_pthread_mutex_lock(atomic_int *mutex) {
  if (shim_pthread_mutex_trylock(mutex) == 0) return 0;
  while (atomic_exchange(mutex, 2)) futex(mutex, FUTEX_WAIT, 2);
  return 0;
}
int shim_pthread_mutex_unlock(atomic_int *mutex) {
  if (atomic_exchange(mutex, 0) == 2) futex(mutex, FUTEX_WAKE, 1);
  return 0;
}

/* The word counts the signals. */
int shim_pthread_cond_init(atomic_int *condition, const void *attributes) {
  if (attributes) abort();
  atomic_store(condition, 0);
  return 0;
}
int shim_pthread_cond_destroy(atomic_int *condition) {
  (void)condition;
  return 0;
}
int shim_pthread_cond_wait(atomic_int *condition, atomic_int *mutex) {
  const int seen = atomic_load(condition);
  shim_pthread_mutex_unlock(mutex);
  futex(condition, FUTEX_WAIT, seen);
  return shim_pthread_mutex_lock(mutex);
}
int shim_pthread_cond_signal(atomic_int *condition) {
  atomic_fetch_add(condition, 1);
  futex(condition, FUTEX_WAKE, 1);
  return 0;
}
int shim_pthread_cond_broadcast(atomic_int *condition) {
  atomic_fetch_add(condition, 1);
  futex(condition, FUTEX_WAKE, 0x7fffffff);
  return 0;
}
