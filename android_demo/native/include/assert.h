/* The parts of bionic's headers that the delegate uses, for building without an NDK; 64-bit ABIs only. */
#pragma once

#define static_assert _Static_assert
