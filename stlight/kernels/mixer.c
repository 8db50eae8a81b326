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
/* The plane of channel c of an array that may be 0. */
#define PLANE(array) ((array) ? (array) + c * N : 0)

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

/* Gradient of the weights of a pointwise product h = W y: dw (M, K) = g (M, N) yᵀ (N, K), where MKL is slow because the rows are
   long. Threads share parts of the rows, whose products are then added in order. In a part, a few numbers of all rows stay in the
   cache, and sums of vectors of products in registers; meanwhile the next numbers are loaded, a row for each of the first blocks. */
enum { ROWS = 4, COLUMNS = REGISTERS == 32 ? 6 : 2, AT_ONCE = 512, PART = 2048 };

INLINE void add_products_of_rows(int rows, int columns, vector *restrict sums, const real *g, const real *y, long K, long N, long n,
                                 const real *ahead) {
    vector s[ROWS][COLUMNS], from_y[COLUMNS];
    for (int r = 0; r < rows; r++)
        for (int k = 0; k < columns; k++) s[r][k] = sums[r * K + k];
    long l = 0;
    for (; l + LANES <= n; l += LANES) {
        if (ahead) __builtin_prefetch(ahead + l, 0, 2);
        for (int k = 0; k < columns; k++) from_y[k] = LOAD(y + k * N + l);
        for (int r = 0; r < rows; r++) {
            vector from_g = LOAD(g + r * N + l);
            for (int k = 0; k < columns; k++) s[r][k] += from_g * from_y[k];
        }
    }
    for (; l < n; l++)
        for (int r = 0; r < rows; r++)
            for (int k = 0; k < columns; k++) s[r][k][0] += g[r * N + l] * y[k * N + l];
    for (int r = 0; r < rows; r++)
        for (int k = 0; k < columns; k++) sums[r * K + k] = s[r][k];
}

int pointwise_weights(int threads, long M, long K, long N, const real *g, const real *y, real *dw) {
    long parts = (N + PART - 1) / PART;
    real *of_parts = malloc(parts * M * K * sizeof *of_parts);
    int failed = !of_parts;
#pragma omp parallel for schedule(static) num_threads(threads) reduction(| : failed)
    for (long part = 0; part < parts; part++) {
        vector *sums = (vector *)scratch(M * K * LANES);
        if (!sums || !of_parts) {
            failed = 1;
            continue;
        }
        memset(sums, 0, M * K * sizeof *sums);
        for (long l = part * PART, n; l < min(N, (part + 1) * PART); l += n) {
            n = min(AT_ONCE, N - l);
            long then = l + AT_ONCE, whole = then + AT_ONCE <= N;
            for (long m = 0, rows = 1, block = 0; m < M; m += rows)
                for (long k = 0, columns; k < K; k += columns, block++) {
                    rows = m + ROWS <= M ? ROWS : 1;
                    columns = rows == 1 ? 1 : k + COLUMNS <= K ? COLUMNS : k + 2 <= K ? 2 : 1;
                    const real *gm = g + m * N + l, *yk = y + k * N + l, *ahead = 0;
                    if (whole && block < M + K) ahead = (block < M ? g + block * N : y + (block - M) * N) + then;
                    vector *s = sums + m * K + k;
                    if (columns == COLUMNS)
                        add_products_of_rows(ROWS, COLUMNS, s, gm, yk, K, N, n, ahead);
                    else if (columns == 2)
                        add_products_of_rows(ROWS, 2, s, gm, yk, K, N, n, ahead);
                    else if (rows > 1)
                        add_products_of_rows(ROWS, 1, s, gm, yk, K, N, n, ahead);
                    else
                        add_products_of_rows(1, 1, s, gm, yk, K, N, n, ahead);
                }
        }
        for (long i = 0; i < M * K; i++) {
            real s = 0;
            for (int j = 0; j < LANES; j++) s += sums[i][j];
            of_parts[part * M * K + i] = s;
        }
    }
    for (long i = 0; i < M * K && !failed; i++) {
        double s = 0;
        for (long part = 0; part < parts; part++) s += of_parts[part * M * K + i];
        dw[i] = s;
    }
    free(of_parts);
    return failed;
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
