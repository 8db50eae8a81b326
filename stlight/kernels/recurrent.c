/* What the cells of recurrent models compute: convolutions by frequency, and gates.

   A frequency has a real and an imaginary part, so that spectra are (F, 2, rows, columns). Numbers of columns are multiples of
   CHANNELS. Threads share the frequencies or rows, and their number does not change the result.
*/
#include "numerics.h"

/* Treat denormal numbers as zero until the end of the block, because gradients of early time steps vanish, and arithmetic on
   denormal numbers is ten times slower. */
#ifdef __SSE__
#include <immintrin.h>
static void restore(unsigned *mode) { _mm_setcsr(*mode); }
#define FLUSH_DENORMALS                                                                                                        \
    __attribute__((cleanup(restore))) unsigned mode = _mm_getcsr();                                                            \
    _mm_setcsr(mode | 0x8040);
#else
#define FLUSH_DENORMALS
#endif
#define PARALLEL _Pragma("omp parallel num_threads(threads)")
#define SHARED _Pragma("omp for schedule(static)")

enum { CHANNELS = 8 };
typedef real lanes __attribute__((vector_size(CHANNELS * sizeof(real)), aligned(sizeof(real)), may_alias));

/* N rows of the complex product y += x w, one vector V wide. x has rows of I numbers, w and y of O; their imaginary parts are
   xi, wi and yi numbers further. */
#define PRODUCT(V, N)                                                                                                          \
    static inline void product_##V##_##N(long I, long O, const real *x, long xi, const real *w, long wi, real *y, long yi) {    \
        V re[N], im[N];                                                                                                        \
        for (int n = 0; n < N; n++) re[n] = *(V *)(y + n * O), im[n] = *(V *)(y + n * O + yi);                                 \
        for (long i = 0; i < I; i++) {                                                                                         \
            V wre = *(const V *)(w + i * O), wim = *(const V *)(w + i * O + wi);                                               \
            for (int n = 0; n < N; n++) {                                                                                      \
                real a = x[n * I + i], b = x[n * I + i + xi];                                                                  \
                re[n] += a * wre, re[n] -= b * wim, im[n] += a * wim, im[n] += b * wre;                                        \
            }                                                                                                                  \
        }                                                                                                                      \
        for (int n = 0; n < N; n++) *(V *)(y + n * O) = re[n], *(V *)(y + n * O + yi) = im[n];                                 \
    }
PRODUCT(vector, 8) PRODUCT(vector, 4) PRODUCT(vector, 1)
PRODUCT(lanes, 8) PRODUCT(lanes, 4) PRODUCT(lanes, 1)

#define COLUMNS(V, o)                                                                                                          \
    for (; b + 8 <= B; b += 8) product_##V##_8(I, O, x + b * I, B * I, w + o, I * O, y + b * O + o, B * O);                      \
    for (; b + 4 <= B; b += 4) product_##V##_4(I, O, x + b * I, B * I, w + o, I * O, y + b * O + o, B * O);                      \
    for (; b < B; b++) product_##V##_1(I, O, x + b * I, B * I, w + o, I * O, y + b * O + o, B * O);

/* y (F, 2, B, O) += x (F, 2, B, I) w (F, 2, I, O). */
void multiply(int threads, long F, long B, long I, long O, const real *X, const real *W, real *Y) {
    PARALLEL {
        FLUSH_DENORMALS
        SHARED
    for (long f = 0; f < F; f++) {
        const real *x = X + f * 2 * B * I, *w = W + f * 2 * I * O;
        real *y = Y + f * 2 * B * O;
        long o = 0, b = 0;
        for (; o + LANES <= O; o += LANES, b = 0) { COLUMNS(vector, o) }
        for (; o < O; o += CHANNELS, b = 0) { COLUMNS(lanes, o) }
    }
    }
}

/* N rows of the weight gradient dw += conj(x)^T dy, from B rows of x and dy. */
#define WEIGHTS(V, N)                                                                                                          \
    static inline void weights_##V##_##N(long B, long I, long O, const real *x, const real *dy, real *dw) {                     \
        V re[N], im[N];                                                                                                        \
        for (int n = 0; n < N; n++) re[n] = *(V *)(dw + n * O), im[n] = *(V *)(dw + n * O + I * O);                            \
        for (long b = 0; b < B; b++) {                                                                                         \
            V dre = *(const V *)(dy + b * O), dim = *(const V *)(dy + b * O + B * O);                                          \
            for (int n = 0; n < N; n++) {                                                                                      \
                real p = x[b * I + n], q = x[b * I + n + B * I];                                                               \
                re[n] += p * dre, re[n] += q * dim, im[n] += p * dim, im[n] -= q * dre;                                        \
            }                                                                                                                  \
        }                                                                                                                      \
        for (int n = 0; n < N; n++) *(V *)(dw + n * O) = re[n], *(V *)(dw + n * O + I * O) = im[n];                            \
    }
WEIGHTS(vector, 8) WEIGHTS(lanes, 8)

/* dw (F, 2, I, O) += conj(x)^T dy, of x (F, 2, B, I) and dy (F, 2, B, O). */
void multiply_backward(int threads, long F, long B, long I, long O, const real *X, const real *DY, real *DW) {
    PARALLEL {
        FLUSH_DENORMALS
        SHARED
    for (long f = 0; f < F; f++)
        for (long i = 0; i < I; i += CHANNELS) {
            const real *x = X + f * 2 * B * I + i, *dy = DY + f * 2 * B * O;
            real *dw = DW + f * 2 * I * O + i * O;
            long o = 0;
            for (; o + LANES <= O; o += LANES) weights_vector_8(B, I, O, x, dy + o, dw + o);
            for (; o < O; o += CHANNELS) weights_lanes_8(B, I, O, x, dy + o, dw + o);
        }
    }
}

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

/* Gates i, f and g are rows of D numbers, `row` numbers apart; other arrays have no gaps. */

/* out = sigmoid(f + bias) c + added, and added = sigmoid(i) tanh(g). `added` may be 0. */
void remember(int threads, long rows, long D, long row, double bias, const real *i, const real *f, const real *g, const real *c,
              real *out, real *added) {
    PARALLEL {
        FLUSH_DENORMALS
        SHARED
    for (long n = 0; n < rows; n++)
        for (long d = 0; d < D; d++) {
            real a = sigmoid(i[n * row + d]) * tanh_(g[n * row + d]);
            out[n * D + d] = sigmoid(f[n * row + d] + (real)bias) * c[n * D + d] + a;
            if (added) added[n * D + d] = a;
        }
    }
}

/* `dadded` may be 0. */
void remember_backward(int threads, long rows, long D, long row, double bias, const real *i, const real *f, const real *g,
                       const real *c, const real *dout, const real *dadded, real *di, real *df, real *dg, real *dc) {
    PARALLEL {
        FLUSH_DENORMALS
        SHARED
    for (long n = 0; n < rows; n++)
            _Pragma("GCC ivdep") for (long d = 0; d < D; d++) {
            long at = n * row + d, k = n * D + d;
            real si = sigmoid(i[at]), sf = sigmoid(f[at] + (real)bias), t = tanh_(g[at]);
            real a = dout[k] + (dadded ? dadded[k] : 0);
            di[k] = a * t * si * (1 - si);
            dg[k] = a * si * (1 - t * t);
            df[k] = dout[k] * c[k] * sf * (1 - sf);
            dc[k] = dout[k] * sf;
        }
    }
}

/* out = sigmoid(o) tanh(y), or tanh(o) tanh(y) if `both`. */
void emit(int threads, long N, long both, const real *o, const real *y, real *out) {
    PARALLEL {
        FLUSH_DENORMALS
        SHARED
    for (long n = 0; n < N; n++) out[n] = (both ? tanh_(o[n]) : sigmoid(o[n])) * tanh_(y[n]);
    }
}

void emit_backward(int threads, long N, long both, const real *o, const real *y, const real *dout, real *d_o, real *dy) {
    PARALLEL {
        FLUSH_DENORMALS
        SHARED
    for (long n = 0; n < N; n++) {
        real s = both ? tanh_(o[n]) : sigmoid(o[n]), t = tanh_(y[n]);
        d_o[n] = dout[n] * t * (both ? 1 - s * s : s * (1 - s));
        dy[n] = dout[n] * s * (1 - t * t);
    }
    }
}
