/* The two halves of an STLMixer in training, one channel at a time, so that a channel's data stays in the cache.

   Arrays are (C, H, W, B) float32, the batch innermost: a tap of a dilated kernel is then a shift of dilation·B floats within
   a row, whatever the dilation, and the batch fills the vector registers. Channels are independent of each other, so threads
   share them out, and the result does not depend on how many there are. With `training` BatchNorm takes the batch's mean and
   biased variance and leaves them in `mean` and `var`; without, it takes what it finds there.

     dw_forward:   y = x + BN(gelu(conv2(conv1(x))))         depthwise half
     act_forward:  z = BN(gelu(h + bias))                    what follows the pointwise product h = W y
*/
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef float v8 __attribute__((vector_size(32), aligned(4), may_alias));

/* Scratch that a thread keeps between calls. */
static _Thread_local float *scratch_memory;
static _Thread_local size_t scratch_size;

static float *scratch(size_t floats) {
    if (floats > scratch_size) {
        free(scratch_memory);
        scratch_memory = malloc(floats * sizeof(float));
        scratch_size = scratch_memory ? floats : 0;
    }
    return scratch_memory;
}

/* exp for x <= 0, to about 1e-7 relative (Cephes); written out so that it becomes vector code anywhere. */
static inline float exp_negative(float x) {
    x = x < -87.0f ? -87.0f : x;
    float n = floorf(x * 1.44269504088896341f + 0.5f);
    float r = x - n * 0.693359375f + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 0.5f;
    p = p * r * r + r + 1.0f;
    int32_t bits = ((int32_t)n + 127) << 23;
    float scale;
    memcpy(&scale, &bits, sizeof scale);
    return p * scale;
}

/* The normal distribution function by Abramowitz and Stegun 7.1.26, and e^(-x²/2) for the derivative. */
static inline float normal_cdf(float x, float *gauss) {
    float e = exp_negative(-0.5f * x * x);
    float t = 1.0f / (1.0f + 0.3275911f * 0.70710678118654752f * fabsf(x));
    float tail = ((((1.061405429f * t - 1.453152027f) * t + 1.421413741f) * t - 0.284496736f) * t + 0.254829592f) * t;
    tail *= 0.5f * e;
    *gauss = e;
    return x < 0 ? tail : 1.0f - tail;
}

static inline float gelu(float x) {
    float gauss;
    return x * normal_cdf(x, &gauss);
}

/* gelu and its slope, which share nearly all of their work. */
static void gelu_and_slope(float *restrict value, float *restrict slope, const float *restrict x, float bias, long n) {
    for (long i = 0; i < n; i++) {
        float gauss, z = x[i] + bias, cdf = normal_cdf(z, &gauss);
        value[i] = z * cdf;
        slope[i] = cdf + z * gauss * 0.3989422804014327f;
    }
}

static float sum(const float *a, long n) {
    float s = 0;
    for (long i = 0; i < n; i++) s += a[i];
    return s;
}

/* Mean and biased variance of n numbers. */
static void moments(const float *a, long n, float *mean, float *var) {
    float m = sum(a, n) / n, q = 0;
    for (long i = 0; i < n; i++) q += (a[i] - m) * (a[i] - m);
    *mean = m;
    *var = q / n;
}

/* out (+)= correlation of the padded rows `in` with a K×K kernel; flip turns the kernel round (the transposed convolution). */
#define CONV(K)                                                                                                                \
    static void conv_##K(float *restrict out, long out_row, const float *restrict in, long in_row, int H, long n, int dil,      \
                         long shift, const float *w, float bias, int flip, int add) {                                          \
        for (int y = 0; y < H; y++) {                                                                                          \
            float *restrict o = out + y * out_row;                                                                             \
            if (!add)                                                                                                          \
                for (long l = 0; l < n; l++) o[l] = bias;                                                                      \
            for (int ky = 0; ky < K; ky++) {                                                                                   \
                int iy = y + (ky - K / 2) * dil;                                                                               \
                if (iy < 0 || iy >= H) continue;                                                                               \
                const float *restrict r = in + iy * in_row;                                                                    \
                float t[K];                                                                                                    \
                for (int kx = 0; kx < K; kx++) t[kx] = flip ? w[K * K - 1 - ky * K - kx] : w[ky * K + kx];                     \
                for (long l = 0; l < n; l++) {                                                                                 \
                    float s = o[l];                                                                                            \
                    for (int kx = 0; kx < K; kx++) s += t[kx] * r[l + kx * shift];                                             \
                    o[l] = s;                                                                                                  \
                }                                                                                                              \
            }                                                                                                                  \
        }                                                                                                                      \
    }                                                                                                                          \
    static void grad_##K(float *restrict dw, const float *restrict g, long g_row, const float *restrict in, long in_row, int H, \
                         long n, int dil, long shift) {                                                                        \
        for (int ky = 0; ky < K; ky++) {                                                                                       \
            v8 acc[K] = {{0}};                                                                                                 \
            float rest[K] = {0};                                                                                               \
            for (int y = 0; y < H; y++) {                                                                                      \
                int iy = y + (ky - K / 2) * dil;                                                                               \
                if (iy < 0 || iy >= H) continue;                                                                               \
                const float *r = in + iy * in_row, *q = g + y * g_row;                                                         \
                long l = 0;                                                                                                    \
                for (; l + 8 <= n; l += 8) {                                                                                   \
                    v8 v = *(const v8 *)(q + l);                                                                               \
                    for (int kx = 0; kx < K; kx++) acc[kx] += v * *(const v8 *)(r + l + kx * shift);                           \
                }                                                                                                              \
                for (long m = l; m < n; m++)                                                                                   \
                    for (int kx = 0; kx < K; kx++) rest[kx] += q[m] * r[m + kx * shift];                                       \
            }                                                                                                                  \
            for (int kx = 0; kx < K; kx++) {                                                                                   \
                float s = rest[kx];                                                                                            \
                for (int j = 0; j < 8; j++) s += acc[kx][j];                                                                   \
                dw[ky * K + kx] = s;                                                                                           \
            }                                                                                                                  \
        }                                                                                                                      \
    }

CONV(1) CONV(3) CONV(5) CONV(7) CONV(9) CONV(11)

typedef void conv_function(float *, long, const float *, long, int, long, int, long, const float *, float, int, int);
typedef void grad_function(float *, const float *, long, const float *, long, int, long, int, long);
static conv_function *const convs[] = {conv_1, conv_3, conv_5, conv_7, conv_9, conv_11};
static grad_function *const grads[] = {grad_1, grad_3, grad_5, grad_7, grad_9, grad_11};

/* Rows of n floats into rows with `pad` zeros at either end. */
static void pad_rows(float *restrict out, const float *restrict in, int H, long n, long pad) {
    for (int y = 0; y < H; y++) {
        float *o = out + y * (n + 2 * pad);
        memset(o, 0, pad * sizeof *o);
        memcpy(o + pad, in + y * n, n * sizeof *o);
        memset(o + pad + n, 0, pad * sizeof *o);
    }
}

/* All functions return 0, or 1 if there was no memory. */
int dw_forward(int threads, int training, int C, int H, int W, int B, int k1, int k2, int dil, float eps, const float *x, const float *w1, const float *b1,
               const float *w2, const float *b2, const float *gamma, const float *beta, float *v, float *y, float *mean,
               float *var) {
    long n = (long)W * B, N = H * n, pad1 = (long)(k1 / 2) * B, pad2 = (long)(k2 / 2) * dil * B;
    long row1 = n + 2 * pad1, row2 = n + 2 * pad2;
    int failed = 0;
#pragma omp parallel for schedule(static) num_threads(threads) reduction(| : failed)
    for (int c = 0; c < C; c++) {
        float *X = scratch(H * (row1 + row2) + N);
        if (!X) {
            failed = 1;
            continue;
        }
        float *U = X + H * row1, *a = U + H * row2, *vc = v + c * N, *yc = y + c * N;
        const float *xc = x + c * N;
        pad_rows(X, xc, H, n, pad1);
        memset(U, 0, H * row2 * sizeof *U);
        convs[k1 / 2](U + pad2, row2, X, row1, H, n, 1, B, w1 + (long)c * k1 * k1, b1[c], 0, 0);
        convs[k2 / 2](vc, n, U, row2, H, n, dil, (long)dil * B, w2 + (long)c * k2 * k2, b2[c], 0, 0);
        for (long i = 0; i < N; i++) a[i] = gelu(vc[i]);
        if (training) moments(a, N, mean + c, var + c);
        float scale = gamma[c] / sqrtf(var[c] + eps), offset = beta[c] - mean[c] * scale;
        for (long i = 0; i < N; i++) yc[i] = xc[i] + a[i] * scale + offset;
    }
    return failed;
}

/* Gradient through BN(a), in place of g → da: returns the gradients of gamma and beta. */
static void norm_backward(float *restrict da, const float *restrict g, const float *restrict a, long N, float gamma, float mean,
                          float invstd, float *dgamma, float *dbeta) {
    float s1 = 0, s2 = 0;
    for (long i = 0; i < N; i++) {
        s1 += g[i];
        s2 += g[i] * (a[i] - mean);
    }
    s2 *= invstd;
    float scale = gamma * invstd, by_mean = s1 / N, by_var = s2 * invstd / N;
    for (long i = 0; i < N; i++) da[i] = scale * (g[i] - by_mean - (a[i] - mean) * by_var);
    *dgamma = s2;
    *dbeta = s1;
}

int dw_backward(int threads, int C, int H, int W, int B, int k1, int k2, int dil, float eps, const float *x, const float *w1, const float *b1,
                const float *w2, const float *gamma, const float *v, const float *mean, const float *var, const float *gy,
                float *gx, float *dw1, float *db1, float *dw2, float *db2, float *dgamma, float *dbeta) {
    long n = (long)W * B, N = H * n, pad1 = (long)(k1 / 2) * B, pad2 = (long)(k2 / 2) * dil * B;
    long row1 = n + 2 * pad1, row2 = n + 2 * pad2;
    int failed = 0;
#pragma omp parallel for schedule(static) num_threads(threads) reduction(| : failed)
    for (int c = 0; c < C; c++) {
        float *P1 = scratch(H * row1 + 2 * H * row2 + 3 * N);
        if (!P1) {
            failed = 1;
            continue;
        }
        float *U = P1 + H * row1, *GV = U + H * row2, *a = GV + H * row2, *e = a + N, *slope = e + N;
        const float *vc = v + c * N, *gc = gy + c * N, *xc = x + c * N;
        const float *w1c = w1 + (long)c * k1 * k1, *w2c = w2 + (long)c * k2 * k2;

        /* Through BatchNorm and GELU to the second convolution's output. */
        gelu_and_slope(a, slope, vc, 0, N);
        norm_backward(e, gc, a, N, gamma[c], mean[c], 1.0f / sqrtf(var[c] + eps), dgamma + c, dbeta + c);
        for (long i = 0; i < N; i++) e[i] *= slope[i];
        db2[c] = sum(e, N);

        /* The first convolution's output again: cheaper than keeping it. */
        pad_rows(P1, xc, H, n, pad1);
        memset(U, 0, H * row2 * sizeof *U);
        convs[k1 / 2](U + pad2, row2, P1, row1, H, n, 1, B, w1c, b1[c], 0, 0);
        grads[k2 / 2](dw2 + (long)c * k2 * k2, e, n, U, row2, H, n, dil, (long)dil * B);
        pad_rows(GV, e, H, n, pad2);
        convs[k2 / 2](e, n, GV, row2, H, n, dil, (long)dil * B, w2c, 0, 1, 0);
        db1[c] = sum(e, N);
        grads[k1 / 2](dw1 + (long)c * k1 * k1, e, n, P1, row1, H, n, 1, B);
        pad_rows(P1, e, H, n, pad1);
        memcpy(gx + c * N, gc, N * sizeof *gx);
        convs[k1 / 2](gx + c * N, n, P1, row1, H, n, 1, B, w1c, 0, 1, 1);
    }
    return failed;
}

int act_forward(int threads, int training, int C, long N, float eps, const float *h, const float *bias, const float *gamma, const float *beta, float *z,
                float *mean, float *var) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int c = 0; c < C; c++) {
        const float *hc = h + c * N;
        float *zc = z + c * N;
        for (long i = 0; i < N; i++) zc[i] = gelu(hc[i] + bias[c]);
        if (training) moments(zc, N, mean + c, var + c);
        float scale = gamma[c] / sqrtf(var[c] + eps), offset = beta[c] - mean[c] * scale;
        for (long i = 0; i < N; i++) zc[i] = zc[i] * scale + offset;
    }
    return 0;
}

int act_backward(int threads, int C, long N, float eps, const float *h, const float *bias, const float *gamma, const float *mean,
                 const float *var, const float *gz, float *gh, float *dbias, float *dgamma, float *dbeta) {
    int failed = 0;
#pragma omp parallel for schedule(static) num_threads(threads) reduction(| : failed)
    for (int c = 0; c < C; c++) {
        float *a = scratch(2 * N), *slope = a + N, *gc = gh + c * N;
        if (!a) {
            failed = 1;
            continue;
        }
        const float *hc = h + c * N;
        gelu_and_slope(a, slope, hc, bias[c], N);
        norm_backward(gc, gz + c * N, a, N, gamma[c], mean[c], 1.0f / sqrtf(var[c] + eps), dgamma + c, dbeta + c);
        for (long i = 0; i < N; i++) gc[i] *= slope[i];
        dbias[c] = sum(gc, N);
    }
    return failed;
}
