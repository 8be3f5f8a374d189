#pragma once

#define INFINITY __builtin_inff()
#define isfinite(x) __builtin_isfinite(x)
#define isnormal(x) __builtin_isnormal(x)

#define copysignf __builtin_copysignf
#define fabsf __builtin_fabsf

double fmax(double a, double b);
double fmin(double a, double b);
double floor(double x);
float roundf(float x);
