/* Both ends of STLight: frames to patches and back, and what follows the encoder's convolution, z = gelu(BN(h)).

   Activations are as in mixer.c. Every function returns 0. */
#include "vectors.h"
#include "numerics.h"

/* Copy a row of frames, or back. Numbers of a clip are p apart in a row of its frame, and B apart in its patches. */
INLINE void copy_row(int clips, long back, long B, long p, long W, long clip, real *frames, real *patches) {
    for (long w = 0; w < W; w++)
        for (int b = 0; b < clips; b++)
            if (back)
                frames[b * clip + w * p] = patches[w * B + b];
            else
                patches[w * B + b] = frames[b * clip + w * p];
}

/* Frames (B, T, H·p, W·p), whose clips are `clip` numbers apart, to patches (T, p, p, H, W, B), or back if `back`. */
int rearrange(int threads, long back, long B, long T, long p, long H, long W, long clip, real *frames, real *patches) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (long row = 0; row < T * H * p; row++) {
        long t = row / (H * p), h = row / p % H, i = row % p;
        for (long b = 0, clips; b < B; b += clips) {
            clips = !back && b + 4 <= B ? 4 : 1;
            for (long j = 0; j < p; j++) {
                real *patch = patches + (((t * p + i) * p + j) * H + h) * W * B + b;
                real *frame = frames + b * clip + ((t * H + h) * p + i) * W * p + j;
                if (back)
                    copy_row(1, 1, B, p, W, clip, frame, patch);
                else if (clips == 4)
                    copy_row(4, 0, B, p, W, clip, frame, patch);
                else
                    copy_row(1, 0, B, p, W, clip, frame, patch);
            }
        }
    }
    return 0;
}

/* h, z (C, N); bias, gamma, beta and statistics (C). h becomes h + bias, if there is one. */
int encoding_forward(int threads, long training, long C, long N, double eps, double momentum, real *h, const real *bias,
                     const real *gamma, const real *beta, real *z, real *mean, real *var, real *running_mean,
                     real *running_var) {
#pragma omp parallel for schedule(dynamic) num_threads(threads)
    for (long c = 0; c < C; c++) {
        real *hc = h + c * N, *zc = z + c * N;
        real b = bias ? bias[c] : 0;
        double total = 0;
        FOR_BLOCKS(N) {
            real s = 0;
            FOR_BLOCK s += hc[i] += b;
            total += s;
        }
        norm bn = normalise(training, c, hc, N, total, eps, momentum, gamma, beta, mean, var, running_mean, running_var);
        for (long i = 0; i < N; i++) zc[i] = gelu(hc[i] * bn.scale + bn.offset);
    }
    return 0;
}

/* h (with bias), gz, gh (C, N), where gh may be the same array as gz; the others (C); dbias may be 0. */
int encoding_backward(int threads, long C, long N, double eps, const real *h, const real *gamma, const real *beta,
                      const real *mean, const real *var, const real *gz, real *gh, real *dbias, real *dgamma, real *dbeta) {
#pragma omp parallel for schedule(dynamic) num_threads(threads)
    for (long c = 0; c < C; c++) {
        const real *hc = h + c * N, *gc = gz + c * N;
        real *ghc = gh + c * N;
        real m = mean[c], scale = gamma[c] / sqrt(var[c] + eps), offset = beta[c] - m * scale;
        double sum_g = 0, sum_ga = 0, total = 0;
        FOR_BLOCKS(N) {
            real s = 0, t = 0;
#pragma GCC ivdep
            FOR_BLOCK {
                ghc[i] = gc[i] * gelu_slope(hc[i] * scale + offset);
                s += ghc[i];
                t += ghc[i] * (hc[i] - m);
            }
            sum_g += s;
            sum_ga += t;
        }
        norm_gradient bn = normalise_backward(c, N, sum_g, sum_ga, eps, gamma, var, dgamma, dbeta);
        FOR_BLOCKS(N) {
            real s = 0;
            FOR_BLOCK s += ghc[i] = ghc[i] * bn.by_g + (hc[i] - m) * bn.by_a + bn.rest;
            total += s;
        }
        if (dbias) dbias[c] = total;
    }
    return 0;
}
