#pragma once

#define INFINITY __builtin_inff()
#define isnormal(x) __builtin_isnormal(x)

double fmax(double a, double b);
double fmin(double a, double b);
double floor(double x);
float roundf(float x);
