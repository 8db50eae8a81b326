/* What is independent for each channel between two pointwise products, one channel at a time, so that its data stays in the
   cache: the end of a mixer and the first half of the next.

   Activations are (C, H, W, B) in `real`, the batch innermost: a tap of a dilated kernel is then a shift of dilation·B numbers
   within a row, and the batch fills the vector registers. N is H·W·B. Threads share the channels, and their number does not
   change the result. With `training` BatchNorm uses the mean and biased variance of the batch, writes them to `statistics` and
   updates the running ones; without, it uses the running ones. The gradient of x is gx, that of w1 is dw1.

     x = BN2(gelu(h + bias)) + residual     what follows a mixer's product h; without h, x is given
     y = x + BN1(gelu(conv2(conv1(x))))     first half of the next mixer, without which k1 is 0; u = conv1(x), v = conv2(u)

   An array of something absent is 0, and so is `residual` if there is none. Every function returns 0, or 1 if there was no
   memory.
*/
#include "vectors.h"
#include "numerics.h"
#include "convolution.h"

/* The plane of a channel of an array of N numbers a plane, or none beyond the last channel. */
#define AHEAD(array, channel) ((channel) < C ? (array) + (channel) * N : 0)
/* The plane of channel c of an array that may be 0. */
#define PLANE(array) ((array) ? (array) + c * N : 0)

/* h, residual, x, u (or 0 to keep none), v, y (C, H, W, B); w1 (C, k1, k1), w2 (C, k2, k2); statistics (4, C): mean and variance
   of gelu(h + bias), then of gelu(v); the others (C). */
int channels_forward(int threads, long training, long C, long H, long W, long B, long k1, long k2, long dilation, double eps2,
                     double eps1, double momentum2, double momentum1, const real *h, const real *bias, const real *gamma2,
                     const real *beta2, real *running_mean2, real *running_var2, const real *residual, real *x, const real *w1,
                     const real *b1, const real *w2, const real *b2, const real *gamma1, const real *beta1,
                     real *running_mean1, real *running_var1, real *u, real *v, real *y, real *statistics) {
    real *mean2 = statistics, *var2 = mean2 + C, *mean1 = var2 + C, *var1 = mean1 + C;
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
            real *xc = x + c * N;
            if (h) {
                const real *rc = PLANE(residual);
                norm bn = normalise(training, c, xc, N, activate(xc, h + c * N, bias[c], N), eps2, momentum2, gamma2, beta2, mean2,
                                    var2, running_mean2, running_var2);
                if (rc)
                    for (long i = 0; i < N; i++) xc[i] = rc[i] + xc[i] * bn.scale + bn.offset;
                else
                    for (long i = 0; i < N; i++) xc[i] = xc[i] * bn.scale + bn.offset;
            }
            if (!k1) continue;
            real *yc = y + c * N, *vc = v + c * N;
            copy_rows(X + p1.pad, p1.row, xc, p1.n, &p1);
            convolve(U + p2.pad, p2.row, X, &p1, w1 + c * k1 * k1, b1[c], 0, AHEAD(y, c));
            if (u) copy_rows(u + c * N, p2.n, U + p2.pad, p2.row, &p2);
            convolve(vc, p2.n, U, &p2, w2 + c * k2 * k2, b2[c], 0, AHEAD(h ? h : x, next));
            norm bn = normalise(training, c, a, N, activate(a, vc, 0, N), eps1, momentum1, gamma1, beta1, mean1, var1,
                                running_mean1, running_var1);
            for (long i = 0; i < N; i++) yc[i] = xc[i] + a[i] * bn.scale + bn.offset;
        }
    }
    return failed;
}

/* Shapes as above. gy is the gradient of y, or without the depthwise half that of x. To the gradient of x, `more` (C, H, W, B) is
   added, if there is any. gx may be 0 if there is h. gh, or gx without h, may be the same array as gy. */
int channels_backward(int threads, long C, long H, long W, long B, long k1, long k2, long dilation, double eps2, double eps1,
                      const real *h, const real *bias, const real *gamma2, const real *beta2, const real *residual,
                      const real *x, const real *w1, const real *b1, const real *w2, const real *gamma1, const real *beta1,
                      const real *u, const real *v, const real *y, const real *statistics, const real *gy, const real *more,
                      real *gx, real *gh, real *dbias, real *dgamma2, real *dbeta2, real *dw1, real *db1, real *dw2, real *db2,
                      real *dgamma1, real *dbeta1) {
    const real *mean2 = statistics, *var2 = mean2 + C, *mean1 = var2 + C, *var1 = mean1 + C;
    plane p1 = plane_of(H, W, B, k1, 1), p2 = plane_of(H, W, B, k2, dilation);
    long N = H * p1.n, padded1 = H * p1.row, padded2 = H * p2.row;
    int failed = 0;
#pragma omp parallel num_threads(threads) reduction(| : failed)
    {
        real *X = scratch(2 * (padded1 + padded2) + 2 * N), *U = X + padded1, *gu = U + padded2, *gv = gu + padded1;
        real *a = gv + padded2, *e = a + N;
        if (X) memset(X, 0, 2 * (padded1 + padded2) * sizeof *X);
#pragma omp for schedule(dynamic)
        for (long c = 0; c < C; c++) {
            if (!X) {
                failed = 1;
                continue;
            }
            long next = c + threads;
            const real *xc = PLANE(x), *g = gy + c * N;
            if (k1) {
                const real *gc = g, *mc = PLANE(more), *w1c = w1 + c * k1 * k1, *w2c = w2 + c * k2 * k2;
                db2[c] = normalise_activate_backward(gv + p2.pad, p2.row, a, gc, v + c * N, 0, y + c * N, xc, c, H, p2.n, eps1,
                                                     gamma1, beta1, mean1, var1, dgamma1, dbeta1);
                copy_rows(X + p1.pad, p1.row, xc, p1.n, &p1);
                if (u)
                    copy_rows(U + p2.pad, p2.row, u + c * N, p2.n, &p2);
                else
                    convolve(U + p2.pad, p2.row, X, &p1, w1c, b1[c], 0, AHEAD(y, next));
                const real *soon[] = {PLANE(h), AHEAD(x, next)};
                const real *later[] = {u ? AHEAD(u, next) : 0, u ? AHEAD(y, next) : 0};
                weights_backward[k2 / 2](dw2 + c * k2 * k2, gv + p2.pad, p2.row, U, &p2, soon);
                convolve_transposed(gu + p1.pad, p1.row, gv, &p2, w2c, 0, AHEAD(v, next));
                db1[c] = sum(gu, padded1);
                weights_backward[k1 / 2](dw1 + c * k1 * k1, gu + p1.pad, p1.row, X, &p1, later);
                convolve_transposed(e, p1.n, gu, &p1, w1c, gc, AHEAD(gy, next));
                for (long i = 0; mc && i < N; i++) e[i] += mc[i];
                if (gx) memcpy(gx + c * N, e, N * sizeof *e);
                g = e;
            }
            if (h)
                dbias[c] = normalise_activate_backward(gh + c * N, N, a, g, h + c * N, bias[c], xc, PLANE(residual), c, 1, N, eps2,
                                                       gamma2, beta2, mean2, var2, dgamma2, dbeta2);
        }
    }
    return failed;
}
