#pragma once

#define INFINITY __builtin_inff()

double fmax(double a, double b);
double fmin(double a, double b);
double floor(double x);
float roundf(float x);
