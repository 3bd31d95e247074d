// The functions of vector_math.h over arrays, for test_vector_math.py: compiled once for each instruction set.
#include "vector_math.h"

#define OVER_ARRAY(function)                                                                          \
    extern "C" void function##_array(const float* __restrict x, float* __restrict y, size_t n) { \
        for (size_t i = 0; i < n; ++i) y[i] = hc::function(x[i]);                                     \
    }

OVER_ARRAY(exp_f32)
OVER_ARRAY(erf_f32)
OVER_ARRAY(tanh_f32)
OVER_ARRAY(sigmoid_f32)
