/* The stages of STLight that are independent for each channel, one channel at a time, so that its data stays in the cache.

   Activations are (C, H, W, B) in `real`, the batch innermost: a tap of a dilated kernel is then a shift of dilation·B numbers
   within a row, and the batch fills the vector registers. N is H·W·B. Threads share the channels, and their number does not
   change the result. With `training` BatchNorm uses the mean and biased variance of the batch, writes them to `mean` and `var` and
   updates the running ones; without, it uses the running ones. The gradient of x is gx, that of w1 is dw1.

     depthwise:   y = x + BN(gelu(conv2(conv1(x))))     first half of a mixer; u = conv1(x), v = conv2(u)
     activation:  z = BN(gelu(h + bias))                what follows a mixer's pointwise product h = W y
     encoding:    z = gelu(BN(h))                       what follows the encoder's convolution

   Every function returns 0, or 1 if there was no memory.
*/
#include "numerics.h"
#include "convolution.h"

/* The plane of a channel of an array of N numbers a plane, or none beyond the last channel. */
#define AHEAD(array, channel) ((channel) < C ? (array) + (channel) * N : 0)

/* Frames (B, T, H·p, W·p) to patches (T, p, p, H, W, B), or back if `back`. */
int rearrange(int threads, long back, long B, long T, long p, long H, long W, const real *in, real *out) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (long row = 0; row < T * H * p; row++) {
        long t = row / (H * p), h = row / p % H, i = row % p;
        for (long j = 0; j < p; j++)
            for (long b = 0; b < B; b++) {
                long patch = (((t * p + i) * p + j) * H + h) * W * B + b, frame = (((b * T + t) * H + h) * p + i) * W * p + j;
                if (back)
                    for (long w = 0; w < W; w++) out[frame + w * p] = in[patch + w * B];
                else
                    for (long w = 0; w < W; w++) out[patch + w * B] = in[frame + w * p];
            }
    }
    return 0;
}

/* x, u (or 0 to keep none), v, y (C, H, W, B); w1 (C, k1, k1), w2 (C, k2, k2); biases, gamma, beta and statistics (C). */
int depthwise_forward(int threads, long training, long C, long H, long W, long B, long k1, long k2, long dilation, double eps,
                      double momentum, const real *x, const real *w1, const real *b1, const real *w2, const real *b2,
                      const real *gamma, const real *beta, real *u, real *v, real *y, real *mean, real *var,
                      real *running_mean, real *running_var) {
    plane p1 = plane_of(H, W, B, k1, 1), p2 = plane_of(H, W, B, k2, dilation);
    long N = H * p1.n;
    int failed = 0;
#pragma omp parallel for schedule(dynamic) num_threads(threads) reduction(| : failed)
    for (long c = 0; c < C; c++) {
        long next = c + threads;
        real *X = scratch(H * (p1.row + p2.row) + N);
        if (!X) {
            failed = 1;
            continue;
        }
        real *U = X + H * p1.row, *a = U + H * p2.row, *yc = y + c * N, *vc = v + c * N;
        const real *xc = x + c * N;
        pad_rows(X, xc, &p1);
        memset(U, 0, H * p2.row * sizeof *U);
        convolve(U + p2.pad, p2.row, X, &p1, w1 + c * k1 * k1, b1[c], AHEAD(y, c));
        if (u) copy_rows(u + c * N, p2.n, U + p2.pad, p2.row, &p2);
        convolve(vc, p2.n, U, &p2, w2 + c * k2 * k2, b2[c], AHEAD(x, next));
        norm bn = normalise(training, c, a, N, activate(a, vc, 0, N), eps, momentum, gamma, beta, mean, var, running_mean,
                            running_var);
        for (long i = 0; i < N; i++) yc[i] = xc[i] + a[i] * bn.scale + bn.offset;
    }
    return failed;
}

/* Shapes as above; u is 0 if it was not kept. gx may be the same array as gy. */
int depthwise_backward(int threads, long C, long H, long W, long B, long k1, long k2, long dilation, double eps, const real *x,
                       const real *w1, const real *b1, const real *w2, const real *gamma, const real *u, const real *v,
                       const real *mean, const real *var, const real *gy, real *gx, real *dw1, real *db1, real *dw2, real *db2,
                       real *dgamma, real *dbeta) {
    plane p1 = plane_of(H, W, B, k1, 1), p2 = plane_of(H, W, B, k2, dilation);
    long N = H * p1.n;
    int failed = 0;
#pragma omp parallel for schedule(dynamic) num_threads(threads) reduction(| : failed)
    for (long c = 0; c < C; c++) {
        long next = c + threads;
        real *P = scratch(H * (p1.row + p2.row) + N);
        if (!P) {
            failed = 1;
            continue;
        }
        real *U = P + H * p1.row, *e = U + H * p2.row, *gxc = gx + c * N;
        const real *vc = v + c * N, *gc = gy + c * N, *w1c = w1 + c * k1 * k1, *w2c = w2 + c * k2 * k2;

        /* Through BatchNorm and GELU to the second convolution's output. */
        db2[c] = normalise_activate_backward(e, gc, vc, 0, c, N, eps, gamma, mean, var, dgamma, dbeta);

        pad_rows(P, x + c * N, &p1);
        memset(U, 0, H * p2.row * sizeof *U);
        if (u)
            copy_rows(U + p2.pad, p2.row, u + c * N, p2.n, &p2);
        else
            convolve(U + p2.pad, p2.row, P, &p1, w1c, b1[c], 0);
        weights_backward[k2 / 2](dw2 + c * k2 * k2, e, U, &p2);
        pad_rows(U, e, &p2);
        convolve_transposed(e, U, &p2, w2c, AHEAD(v, next));
        db1[c] = sum(e, N);
        weights_backward[k1 / 2](dw1 + c * k1 * k1, e, P, &p1);
        pad_rows(P, e, &p1);
        convolve_transposed(e, P, &p1, w1c, AHEAD(gy, next));
#pragma GCC ivdep
        for (long i = 0; i < N; i++) gxc[i] = gc[i] + e[i];
    }
    return failed;
}

/* h, z (C, N); bias, gamma, beta and statistics (C). */
int activation_forward(int threads, long training, long C, long N, double eps, double momentum, const real *h, const real *bias,
                       const real *gamma, const real *beta, real *z, real *mean, real *var, real *running_mean,
                       real *running_var) {
#pragma omp parallel for schedule(dynamic) num_threads(threads)
    for (long c = 0; c < C; c++) {
        real *zc = z + c * N;
        norm bn = normalise(training, c, zc, N, activate(zc, h + c * N, bias[c], N), eps, momentum, gamma, beta, mean, var,
                            running_mean, running_var);
        for (long i = 0; i < N; i++) zc[i] = zc[i] * bn.scale + bn.offset;
    }
    return 0;
}

/* h, gz, gh (C, N); the others (C). */
int activation_backward(int threads, long C, long N, double eps, const real *h, const real *bias, const real *gamma,
                        const real *mean, const real *var, const real *gz, real *gh, real *dbias, real *dgamma, real *dbeta) {
#pragma omp parallel for schedule(dynamic) num_threads(threads)
    for (long c = 0; c < C; c++) {
        dbias[c] = normalise_activate_backward(gh + c * N, gz + c * N, h + c * N, bias[c], c, N, eps, gamma, mean, var, dgamma,
                                               dbeta);
    }
    return 0;
}

/* h, z (C, N); gamma, beta and statistics (C). */
int encoding_forward(int threads, long training, long C, long N, double eps, double momentum, const real *h, const real *gamma,
                     const real *beta, real *z, real *mean, real *var, real *running_mean, real *running_var) {
#pragma omp parallel for schedule(dynamic) num_threads(threads)
    for (long c = 0; c < C; c++) {
        const real *hc = h + c * N;
        real *zc = z + c * N;
        norm bn = normalise(training, c, hc, N, training ? sum(hc, N) : 0, eps, momentum, gamma, beta, mean, var, running_mean,
                            running_var);
        for (long i = 0; i < N; i++) zc[i] = gelu(hc[i] * bn.scale + bn.offset);
    }
    return 0;
}

/* h, gz, gh (C, N); the others (C). */
int encoding_backward(int threads, long C, long N, double eps, const real *h, const real *gamma, const real *beta,
                      const real *mean, const real *var, const real *gz, real *gh, real *dgamma, real *dbeta) {
#pragma omp parallel for schedule(dynamic) num_threads(threads)
    for (long c = 0; c < C; c++) {
        const real *hc = h + c * N, *gc = gz + c * N;
        real *ghc = gh + c * N;
        real m = mean[c], scale = gamma[c] / sqrt(var[c] + eps), offset = beta[c] - m * scale;
        double sum_g = 0, sum_ga = 0;
        FOR_BLOCKS(N) {
            real s = 0, t = 0;
            FOR_BLOCK {
                ghc[i] = gc[i] * gelu_slope(hc[i] * scale + offset);
                s += ghc[i];
                t += ghc[i] * (hc[i] - m);
            }
            sum_g += s;
            sum_ga += t;
        }
        norm_gradient bn = normalise_backward(c, N, sum_g, sum_ga, eps, gamma, mean, var, dgamma, dbeta);
        for (long i = 0; i < N; i++) ghc[i] = ghc[i] * bn.by_g + hc[i] * bn.by_a + bn.rest;
    }
    return 0;
}
