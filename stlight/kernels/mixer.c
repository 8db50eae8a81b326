/* What is independent for each channel in a mixer, one channel at a time, so that its data stays in the cache.

   Activations are (C, H, W, B) in `real`, the batch innermost: a tap of a dilated kernel is then a shift of dilation·B numbers
   within a row, and the batch fills the vector registers. N is H·W·B. Threads share the channels, and their number does not
   change the result. With `training` BatchNorm uses the mean and biased variance of the batch, writes them to `mean` and `var` and
   updates the running ones; without, it uses the running ones. The gradient of x is gx, that of w1 is dw1.

     depthwise:   y = x + BN(gelu(conv2(conv1(x))))     first half of a mixer; u = conv1(x), v = conv2(u)
     activation:  z = BN(gelu(h + bias))                what follows a mixer's pointwise product h = W y

   Every function returns 0, or 1 if there was no memory.
*/
#include "vectors.h"
#include "numerics.h"
#include "convolution.h"

/* The plane of a channel of an array of N numbers a plane, or none beyond the last channel. */
#define AHEAD(array, channel) ((channel) < C ? (array) + (channel) * N : 0)
/* The plane of channel c of an array that may be 0. */
#define PLANE(array) ((array) ? (array) + c * N : 0)

/* x, u (or 0 to keep none), v, y (C, H, W, B); w1 (C, k1, k1), w2 (C, k2, k2); biases, gamma, beta and statistics (C). */
int depthwise_forward(int threads, long training, long C, long H, long W, long B, long k1, long k2, long dilation, double eps,
                      double momentum, const real *x, const real *w1, const real *b1, const real *w2, const real *b2,
                      const real *gamma, const real *beta, real *u, real *v, real *y, real *mean, real *var,
                      real *running_mean, real *running_var) {
    plane p1 = plane_of(H, W, B, k1, 1), p2 = plane_of(H, W, B, k2, dilation);
    long N = H * p1.n;
    int failed = 0;
#pragma omp parallel num_threads(threads) reduction(| : failed)
    {
        real *X = scratch(H * (p1.row + p2.row) + N), *U = X + H * p1.row, *a = U + H * p2.row;
        if (X) memset(X, 0, H * (p1.row + p2.row) * sizeof *X);
#pragma omp for schedule(dynamic)
        for (long c = 0; c < C; c++) {
            if (!X) {
                failed = 1;
                continue;
            }
            long next = c + threads;
            real *yc = y + c * N, *vc = v + c * N;
            const real *xc = x + c * N;
            copy_rows(X + p1.pad, p1.row, xc, p1.n, &p1);
            convolve(U + p2.pad, p2.row, X, &p1, w1 + c * k1 * k1, b1[c], AHEAD(y, c));
            if (u) copy_rows(u + c * N, p2.n, U + p2.pad, p2.row, &p2);
            convolve(vc, p2.n, U, &p2, w2 + c * k2 * k2, b2[c], AHEAD(x, next));
            norm bn = normalise(training, c, a, N, activate(a, vc, 0, N), eps, momentum, gamma, beta, mean, var, running_mean,
                                running_var);
            for (long i = 0; i < N; i++) yc[i] = xc[i] + a[i] * bn.scale + bn.offset;
        }
    }
    return failed;
}

/* Shapes as above; u is 0 if it was not kept. gx may be the same array as gy. */
int depthwise_backward(int threads, long C, long H, long W, long B, long k1, long k2, long dilation, double eps, const real *x,
                       const real *w1, const real *b1, const real *w2, const real *gamma, const real *beta, const real *u,
                       const real *v, const real *y, const real *mean, const real *var, const real *gy, real *gx, real *dw1,
                       real *db1, real *dw2, real *db2, real *dgamma, real *dbeta) {
    plane p1 = plane_of(H, W, B, k1, 1), p2 = plane_of(H, W, B, k2, dilation);
    long N = H * p1.n, padded1 = H * p1.row, padded2 = H * p2.row;
    int failed = 0;
#pragma omp parallel num_threads(threads) reduction(| : failed)
    {
        real *X = scratch(2 * (padded1 + padded2) + N), *U = X + padded1, *gu = U + padded2, *gv = gu + padded1, *e = gv + padded2;
        if (X) memset(X, 0, 2 * (padded1 + padded2) * sizeof *X);
#pragma omp for schedule(dynamic)
        for (long c = 0; c < C; c++) {
            if (!X) {
                failed = 1;
                continue;
            }
            long next = c + threads;
            real *gxc = gx + c * N;
            const real *gc = gy + c * N, *w1c = w1 + c * k1 * k1, *w2c = w2 + c * k2 * k2;
            db2[c] = normalise_activate_backward(gv + p2.pad, p2.row, e, gc, v + c * N, 0, y + c * N, x + c * N, c, H, p2.n, eps,
                                                 gamma, beta, mean, var, dgamma, dbeta);
            copy_rows(X + p1.pad, p1.row, x + c * N, p1.n, &p1);
            if (u)
                copy_rows(U + p2.pad, p2.row, u + c * N, p2.n, &p2);
            else
                convolve(U + p2.pad, p2.row, X, &p1, w1c, b1[c], 0);
            weights_backward[k2 / 2](dw2 + c * k2 * k2, gv + p2.pad, p2.row, U, &p2);
            convolve_transposed(gu + p1.pad, p1.row, gv, &p2, w2c, AHEAD(v, next));
            db1[c] = sum(gu, padded1);
            weights_backward[k1 / 2](dw1 + c * k1 * k1, gu + p1.pad, p1.row, X, &p1);
            convolve_transposed(e, p1.n, gu, &p1, w1c, AHEAD(gy, next));
#pragma GCC ivdep
            for (long i = 0; i < N; i++) gxc[i] = gc[i] + e[i];
        }
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

/* h, gz, gh (C, N), where gh may be the same array as gz; z (C, N), to which `residual` (C, N) was added if there is one, or 0 if
   there is no z; the others (C). */
int activation_backward(int threads, long C, long N, double eps, const real *h, const real *bias, const real *gamma,
                        const real *beta, const real *z, const real *residual, const real *mean, const real *var,
                        const real *gz, real *gh, real *dbias, real *dgamma, real *dbeta) {
    int failed = 0;
#pragma omp parallel for schedule(dynamic) num_threads(threads) reduction(| : failed)
    for (long c = 0; c < C; c++) {
        real *a = scratch(N);
        if (a)
            dbias[c] = normalise_activate_backward(gh + c * N, N, a, gz + c * N, h + c * N, bias[c], PLANE(z), PLANE(residual), c, 1,
                                                   N, eps, gamma, beta, mean, var, dgamma, dbeta);
        else
            failed = 1;
    }
    return failed;
}
