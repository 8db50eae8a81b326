/* The gates of recurrent cells, on rows of channels. Threads share the rows, and their number does not change the result. */
#ifndef __clang__
/* Otherwise 2^n p + (2^n - 1) in exp loses what makes tanh exact near zero. */
#pragma GCC optimize("no-associative-math")
#endif
#include "parallel.h"

/* exp(x) - 1 within an ulp or two. */
static inline float expm1_(float x) {
    x = x < -87 ? -87 : x > 87 ? 87 : x;
    float n = rintf(x * 1.44269504f), r = x - n * 0.693147181f;
    float p = r + r * r * (0.5f + r * (0.166666667f + r * (0.0416666667f + r * (0.00833333333f + r * (0.00138888889f + r * 0.000198412698f)))));
    union {
        int32_t bits;
        float value;
    } power = {((int32_t)n + 127) << 23};
    return power.value * p + (power.value - 1);
}
static inline float sigmoid(float x) { return 1 / (2 + expm1_(-x)); }
static inline float tanh_(float x) {
    float e = expm1_(2 * fabsf(x));
    return copysignf(e / (e + 2), x);
}

/* Rows of gates are i, f, g of D numbers each and possibly more, `row` numbers in all; other arrays have rows of D. D is a
   multiple of CHANNELS. */
#define FOR_VALUES                                                                                                             \
    SHARED                                                                                                                     \
    for (long n = 0; n < rows; n++)                                                                                            \
        for (long d = 0, at = n * row, k = n * D; d < D; d += CHANNELS, at += CHANNELS, k += CHANNELS)                          \
            _Pragma("omp simd") for (long j = 0; j < CHANNELS; j++)

/* out = sigmoid(f + bias) c + added, and added = sigmoid(i) tanh(g). `added` may be 0. */
void remember(int threads, long rows, long D, long row, double bias, const real *gates, const real *c, real *out, real *added) {
    const real *i = gates, *f = i + D, *g = f + D;
    PARALLEL {
        FLUSH_DENORMALS
        FOR_VALUES out[k + j] = sigmoid(f[at + j] + (real)bias) * c[k + j] + sigmoid(i[at + j]) * tanh_(g[at + j]);
        if (added) FOR_VALUES added[k + j] = sigmoid(i[at + j]) * tanh_(g[at + j]);
    }
}

/* `dadded` may be 0. */
void remember_backward(int threads, long rows, long D, long row, double bias, const real *gates, const real *c, const real *dout,
                       const real *dadded, real *dgates, real *dc) {
    const real *i = gates, *f = i + D, *g = f + D;
    real *di = dgates, *df = di + D, *dg = df + D;
    PARALLEL {
        FLUSH_DENORMALS
        FOR_VALUES {
            real si = sigmoid(i[at + j]), sf = sigmoid(f[at + j] + (real)bias), t = tanh_(g[at + j]), a = dout[k + j];
            di[at + j] = a * t * si * (1 - si);
            dg[at + j] = a * si * (1 - t * t);
            df[at + j] = a * c[k + j] * sf * (1 - sf);
            dc[k + j] = a * sf;
        }
        if (dadded) FOR_VALUES {
            real si = sigmoid(i[at + j]), t = tanh_(g[at + j]), a = dadded[k + j];
            di[at + j] += a * t * si * (1 - si);
            dg[at + j] += a * si * (1 - t * t);
        }
    }
}

/* out = sigmoid(o) tanh(y), or tanh(o) tanh(y) if `both`. */
void emit(int threads, long N, long both, const real *restrict o, const real *restrict y, real *restrict out) {
    PARALLEL {
        FLUSH_DENORMALS
        SHARED
        for (long n = 0; n < N / CHANNELS; n++)
            if (both)
                _Pragma("omp simd") for (long k = n * CHANNELS; k < (n + 1) * CHANNELS; k++) out[k] = tanh_(o[k]) * tanh_(y[k]);
            else
                _Pragma("omp simd") for (long k = n * CHANNELS; k < (n + 1) * CHANNELS; k++) out[k] = sigmoid(o[k]) * tanh_(y[k]);
    }
}

void emit_backward(int threads, long N, long both, const real *restrict o, const real *restrict y, const real *restrict dout,
                   real *restrict d_o, real *restrict dy) {
    PARALLEL {
        FLUSH_DENORMALS
        SHARED
        for (long n = 0; n < N / CHANNELS; n++)
            _Pragma("omp simd") for (long k = n * CHANNELS; k < (n + 1) * CHANNELS; k++) {
                real e = expm1_(both ? 2 * fabsf(o[k]) : -o[k]), s = (both ? e : 1) / (e + 2), t = tanh_(y[k]);
                d_o[k] = dout[k] * t * (both ? 1 - s * s : s * (1 - s));
                dy[k] = dout[k] * (both ? copysignf(s, o[k]) : s) * (1 - t * t);
            }
    }
}
