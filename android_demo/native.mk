# The delegate and its JNI library for Android, without an NDK, and the AAR with both.
TARGET_arm64-v8a := aarch64-linux-android$(MIN_SDK)
TARGET_x86_64 := x86_64-linux-android$(MIN_SDK)
CLANG = $(call need,clang)$(call need,ld.lld)clang
JDK = $(call need,javac)$(realpath $(dir $(realpath $(shell command -v javac)))..)
JNI_HEADERS = -isystem $(JDK)/include -isystem $(JDK)/include/linux
CPP := runtime/src/main/cpp

DELEGATE_NAMES := $(sort $(patsubst ../runtime/src/%.c,%,$(wildcard ../runtime/src/*.c)))
WARNINGS := -Wall -Wextra -Werror -Wconversion -Wno-sign-conversion -Wshadow -Wstrict-prototypes
NATIVE_FLAGS := -O3 -std=c11 -fPIC -fvisibility=hidden -ffp-contract=off -nostdlibinc -isystem native/include \
  $(WARNINGS)
X86_FLAGS_isa_popcnt := -mpopcnt
X86_FLAGS_isa_avx2 := -mavx2 -mpopcnt
X86_FLAGS_isa_avx512 := -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vpopcntdq -mprefer-vector-width=512
# Not common-page-size: with lld 14 the relro of a library without data would then reach beyond its last segment.
NATIVE_LINK := -nostdlib -shared -fuse-ld=lld -Wl,-z,defs -Wl,-z,max-page-size=16384 -Wl,--strip-all
# For __cpu_model, behind __builtin_cpu_supports; the NDK has it in compiler-rt.
LIBGCC_x86_64 = $(call need,gcc)$(shell gcc -print-libgcc-file-name) -Wl,--exclude-libs,ALL

NATIVE := $(foreach abi,$(ABIS),build/native/$(abi)/liblarq_rep_delegate.so build/native/$(abi)/liblarq_rep_jni.so)

.PHONY: native
native: $(NATIVE)  ## the delegate and its JNI library, build/native/ABI/*.so

# Empty libraries with the symbols of native/symbols.txt and version LIBC, as the NDK's.
define STUB
build/native/$(1)/stubs/$(2).so: native/symbols.txt native.mk
	@mkdir -p $$(@D)
	awk '$$$$1 == "$(2)" { \
	  section = $$$$2 == "object" ? ".bss" : ".text"; size = $$$$2 == "object" ? $$$$4 : 4; \
	  print section "\n.globl " $$$$3 "\n.type " $$$$3 ",%" $$$$2 "\n.size " $$$$3 "," size "\n" $$$$3 ":\n.skip " size }' \
	  native/symbols.txt > $$(@:.so=.s)
	echo 'LIBC { global: *; };' > $$(@:.so=.map)
	$$(CLANG) --target=$(TARGET_$(1)) -nostdlib -shared -fuse-ld=lld -Wl,-soname,$(2).so \
	  -Wl,--version-script=$$(@:.so=.map) -o $$@ $$(@:.so=.s)
endef

define LIBRARIES
$(foreach name,$(DELEGATE_NAMES),$(eval \
  build/native/$(1)/$(name).o: FLAGS = $$(if $$(filter x86_64,$(1)),$$(X86_FLAGS_$(name)))))

build/native/$(1)/%.o: ../runtime/src/%.c $(wildcard ../runtime/src/*.h native/include/*.h) native.mk
	@mkdir -p $$(@D)
	$$(CLANG) --target=$(TARGET_$(1)) $(NATIVE_FLAGS) $$(FLAGS) -c -o $$@ $$<

build/native/$(1)/larq_rep_jni.o: $(CPP)/larq_rep_jni.c ../runtime/src/tflite.h $(wildcard native/include/*.h) native.mk
	@mkdir -p $$(@D)
	$$(CLANG) --target=$(TARGET_$(1)) $(NATIVE_FLAGS) -I../runtime/src $$(JNI_HEADERS) -c -o $$@ $$<

build/native/$(1)/liblarq_rep_delegate.so: $(DELEGATE_NAMES:%=build/native/$(1)/%.o) ../runtime/src \
    $(foreach stub,libc libm,build/native/$(1)/stubs/$(stub).so)
	$$(CLANG) --target=$(TARGET_$(1)) $(NATIVE_LINK) -Wl,-soname,$$(@F) -Lbuild/native/$(1)/stubs -o $$@ \
	  $$(filter %.o,$$^) $$(LIBGCC_$(1)) -lc -lm

build/native/$(1)/liblarq_rep_jni.so: build/native/$(1)/larq_rep_jni.o build/native/$(1)/liblarq_rep_delegate.so
	$$(CLANG) --target=$(TARGET_$(1)) $(NATIVE_LINK) -Wl,-soname,$$(@F) -Lbuild/native/$(1)/stubs -o $$@ $$^ -lc
endef
$(foreach abi,$(ABIS),$(eval $(call LIBRARIES,$(abi)))\
  $(foreach stub,libc libm,$(eval $(call STUB,$(abi),$(stub)))))

RUNTIME_SOURCES := $(wildcard runtime/src/main/java/com/larqrep/runtime/*.java)
build/runtime/compiled: $(RUNTIME_SOURCES) $(call folders,runtime/src/main/java) $(TFLITE_API)
	rm -rf build/runtime/classes
	$(JAVAC) -cp $(TFLITE_API) -d build/runtime/classes $(RUNTIME_SOURCES)
	touch $@

$(AAR): tools/aar.py build/runtime/compiled runtime/src/main/AndroidManifest.xml runtime/consumer-rules.pro \
    runtime/NOTICE ../LICENSE $(NATIVE)
	$(PYTHON) tools/aar.py $@ --min-sdk $(MIN_SDK) --classes build/runtime/classes --libraries build/native

# What runs Android's libraries on this machine: a bionic of glibc's functions, and two programs that use it.
# SHIM_ARCHIVES: where the libraries come from; the AARs have the same ones, for work on the shim without an APK.
SHIM_ARCHIVES ?= $(APK)
HOST_CC_x86_64 = $(call need,gcc)gcc
HOST_CC_arm64-v8a = $(call need,aarch64-linux-gnu-gcc)aarch64-linux-gnu-gcc
HOST_FLAGS := -O2 -std=c11 -D_DEFAULT_SOURCE -Wall -Wextra -Werror

.PHONY: host
host: $(ABIS:%=build/shim/%/run) build/shim/HostRun.jar  ## what runs Android's libraries here, into build/shim

define SHIM
build/shim/$(1)/libc.S: host/shim.py $(SHIM_ARCHIVES)
	$$(call need,llvm-nm)$(PYTHON) host/shim.py $(1) $$(@D) $(SHIM_ARCHIVES)

build/shim/$(1)/libshim.so: host/shim.c native.mk
	@mkdir -p $$(@D)
	$$(HOST_CC_$(1)) $(HOST_FLAGS) -fPIC -shared -Wl,-soname,libshim.so -o $$@ $$< -ldl

build/shim/$(1)/libc.so: build/shim/$(1)/libc.S build/shim/$(1)/libshim.so
	echo 'LIBC { global: *; };' > $$(@D)/versions.map
	for name in m dl log; do $$(HOST_CC_$(1)) -nostdlib -shared -Wl,-soname,lib$$$$name.so \
	  -Wl,--version-script=$$(@D)/versions.map -o $$(@D)/lib$$$$name.so -x c /dev/null || exit 1; done
	$$(HOST_CC_$(1)) -nostdlib -shared -Wl,-soname,libc.so -Wl,--version-script=$$(@D)/versions.map -o $$@ $$^

build/shim/$(1)/run: host/run.c build/shim/$(1)/libc.so
	$$(HOST_CC_$(1)) $(HOST_FLAGS) $$(JNI_HEADERS) -o $$@ $$< -ldl
endef
$(foreach abi,$(ABIS),$(eval $(call SHIM,$(abi))))

build/shim/HostRun.jar: host/HostRun.java build/aar/classes.jar $(TFLITE_JARS)
	rm -rf build/shim/classes
	$(JAVAC) -cp $(call classpath,build/aar/classes.jar $(TFLITE_JARS)) -d build/shim/classes $<
	jar --create --file $@ -C build/shim/classes .
