/* The stages of STLight that are independent for each channel, one channel at a time, so that its data stays in the cache.

   Arrays are (C, H, W, B) in `real`, the batch innermost: a tap of a dilated kernel is then a shift of dilation·B numbers
   within a row, whatever the dilation, and the batch fills the vector registers. Threads share out the channels, and the
   result does not depend on how many there are. With `training` BatchNorm takes the batch's mean and biased variance, leaves them in
   `mean` and `var` and moves the running ones; without, it takes the running ones.

     depthwise:   y = x + BN(gelu(conv2(conv1(x))))     first half of a mixer; u = conv1(x), v = conv2(u)
     activation:  z = BN(gelu(h + bias))                what follows a mixer's pointwise product h = W y
     encoding:    z = gelu(BN(h))                       what follows the encoder's convolution

   Every function returns 0, or 1 if there was no memory.
*/
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifdef DOUBLE
typedef double real;
#else
typedef float real;
#endif

typedef real vector __attribute__((vector_size(32), aligned(sizeof(real)), may_alias));
enum { LANES = 32 / sizeof(real), MAX_KERNEL = 11 };

static inline long min(long a, long b) { return a < b ? a : b; }
static inline long max(long a, long b) { return a > b ? a : b; }

/* Scratch that a thread keeps between calls. */
static _Thread_local real *scratch_memory;
static _Thread_local size_t scratch_size;

static real *scratch(size_t count) {
    if (count > scratch_size) {
        free(scratch_memory);
        scratch_memory = malloc(count * sizeof(real));
        scratch_size = scratch_memory ? count : 0;
    }
    return scratch_memory;
}

/* gelu(x) = x Φ(x), and its slope Φ(x) + x φ(x), are both ½ plus an odd function: ½ + x p(x²). */
#ifdef DOUBLE
static inline real gelu(real x) { return x * 0.5 * erfc(-x * 0.70710678118654752440); }
static inline real gelu_slope(real x) {
    return 0.5 * erfc(-x * 0.70710678118654752440) + x * exp(-0.5 * x * x) * 0.39894228040143267794;
}
#else
/* Minimax polynomials for p on [0, 5.25²] in t = 2 x² / 5.25² - 1, highest power first, summed in four short chains: half the
   time that exp and a division take. Beyond 5.25 both functions are within 1e-7 of where they are going. Errors are rounding,
   near the ends at most 1e-6 for gelu and 3e-6 for its slope, and below 1e-6 for |x| < 2, where most values lie. */
#define REACH 5.25f
#define ODD_HALF(NAME, ...)                                                                                                    \
    static inline float NAME(float x) {                                                                                        \
        static const float p[16] = {__VA_ARGS__};                                                                              \
        float a = fabsf(x) < REACH ? fabsf(x) : REACH, t = a * a * (2 / (REACH * REACH)) - 1, t2 = t * t, t4 = t2 * t2;        \
        float s0 = p[0], s1 = p[1], s2 = p[2], s3 = p[3];                                                                      \
        for (int k = 4; k < 16; k += 4)                                                                                        \
            s0 = s0 * t4 + p[k], s1 = s1 * t4 + p[k + 1], s2 = s2 * t4 + p[k + 2], s3 = s3 * t4 + p[k + 3];                    \
        return 0.5f + copysignf(((s0 * t + s1) * t2 + (s2 * t + s3)) * a, x);                                                  \
    }
ODD_HALF(normal_cdf,
        -8.387550042e-05f, 2.694882569e-04f, -3.560716577e-04f, 5.682692863e-04f,
        -1.469298964e-03f, 3.015598981e-03f, -5.136341788e-03f, 8.340210654e-03f,
        -1.289630122e-02f, 1.856360398e-02f, -2.501793206e-02f, 3.202765435e-02f,
        -3.976550326e-02f, 4.964599758e-02f, -6.712676585e-02f, 1.346593499e-01f)
ODD_HALF(gelu_slope,
        -2.131446032e-03f, 5.595217459e-03f, -4.353189841e-03f, 5.429600831e-03f,
        -1.894703880e-02f, 3.413084894e-02f, -4.429537058e-02f, 5.759831145e-02f,
        -7.219559699e-02f, 7.936543971e-02f, -7.758520544e-02f, 7.009363919e-02f,
        -6.189175323e-02f, 5.928318202e-02f, -6.992331892e-02f, 1.350651681e-01f)
static inline float gelu(float x) { return x * normal_cdf(x); }
#endif

/* Sums over many numbers: in `real` within a block, in double from block to block, as near as PyTorch's own. */
enum { SUMMED_AT_ONCE = 512 };
#define FOR_BLOCKS(N) for (long i0 = 0, i1; i1 = min(i0 + SUMMED_AT_ONCE, N), i0 < N; i0 = i1)
#define FOR_BLOCK for (long i = i0; i < i1; i++)

static double sum(const real *a, long N) {
    double total = 0;
    FOR_BLOCKS(N) {
        real s = 0;
        FOR_BLOCK s += a[i];
        total += s;
    }
    return total;
}

/* a = gelu(x + bias); gives the sum of a. */
static double activate(real *restrict a, const real *restrict x, real bias, long N) {
    double total = 0;
    FOR_BLOCKS(N) {
        real s = 0;
        FOR_BLOCK s += a[i] = gelu(x[i] + bias);
        total += s;
    }
    return total;
}

/* What a BatchNorm comes to for one channel: out = in · scale + offset. */
typedef struct {
    real scale, offset;
} norm;

/* For N values a whose sum is `total`. */
static norm normalise(long training, long c, const real *a, long N, double total, double eps, double momentum, const real *gamma,
                      const real *beta, real *mean, real *var, real *running_mean, real *running_var) {
    if (training) {
        real m = total / N;
        double squares = 0;
        FOR_BLOCKS(N) {
            real q = 0;
            FOR_BLOCK q += (a[i] - m) * (a[i] - m);
            squares += q;
        }
        mean[c] = m;
        var[c] = squares / N;
        running_mean[c] += (real)momentum * (m - running_mean[c]);
        running_var[c] += momentum * (squares / max(1, N - 1) - running_var[c]);
    } else {
        mean = running_mean;
        var = running_var;
    }
    double scale = gamma[c] / sqrt(var[c] + eps);
    return (norm){scale, beta[c] - mean[c] * scale};
}

/* The gradient of a BatchNorm's input a from that of its output g: da = g · by_g + a · by_a + rest. */
typedef struct {
    real by_g, by_a, rest;
} norm_gradient;

/* From the sums of g and of g (a - mean), which also make the gradients of gamma and beta. */
static norm_gradient normalise_backward(long c, long N, double sum_g, double sum_ga, double eps, const real *gamma, const real *mean,
                                        const real *var, real *dgamma, real *dbeta) {
    double invstd = 1 / sqrt(var[c] + eps), scale = gamma[c] * invstd, by_a = -scale * invstd * invstd * sum_ga / N;
    dgamma[c] = sum_ga * invstd;
    dbeta[c] = sum_g;
    return (norm_gradient){scale, by_a, -scale * sum_g / N - by_a * mean[c]};
}

/* The gradient dx through BN(gelu(x + bias)) from g, that of the result; gives the sum of dx. */
static double normalise_activate_backward(real *restrict dx, const real *restrict g, const real *restrict x, real bias, long c,
                                          long N, double eps, const real *gamma, const real *mean, const real *var, real *dgamma,
                                          real *dbeta) {
    real m = mean[c];
    double sum_g = 0, sum_ga = 0, total = 0;
    FOR_BLOCKS(N) {
        real s = 0, t = 0;
        FOR_BLOCK {
            dx[i] = gelu(x[i] + bias);
            s += g[i];
            t += g[i] * (dx[i] - m);
        }
        sum_g += s;
        sum_ga += t;
    }
    norm_gradient bn = normalise_backward(c, N, sum_g, sum_ga, eps, gamma, mean, var, dgamma, dbeta);
    FOR_BLOCKS(N) {
        real s = 0;
        FOR_BLOCK s += dx[i] = (g[i] * bn.by_g + dx[i] * bn.by_a + bn.rest) * gelu_slope(x[i] + bias);
        total += s;
    }
    return total;
}

/* One kernel over a plane of H rows of n numbers: taps lie `dilation` rows and `shift` numbers apart. Inputs have `pad` zeros
   at either end of a row. */
typedef struct {
    long H, K, dilation;
    long n, shift, pad, row;
} plane;

static plane plane_of(long H, long W, long B, int K, long dilation) {
    long n = W * B, shift = dilation * B, pad = K / 2 * shift;
    return (plane){H, K, dilation, n, shift, pad, n + 2 * pad};
}

static void pad_rows(real *restrict out, const real *restrict in, const plane *p) {
    for (long y = 0; y < p->H; y++) {
        real *o = out + y * p->row;
        memset(o, 0, p->pad * sizeof *o);
        memcpy(o + p->pad, in + y * p->n, p->n * sizeof *o);
        memset(o + p->pad + p->n, 0, p->pad * sizeof *o);
    }
}

static void copy_rows(real *restrict out, long out_row, const real *restrict in, long in_row, const plane *p) {
    for (long y = 0; y < p->H; y++) memcpy(out + y * out_row, in + y * in_row, p->n * sizeof *out);
}

/* V vectors of outputs stay in registers while all taps that reach into the plane are added to them. */
#define BLOCK(V)                                                                                                               \
    static inline void block_##V(real *restrict out, const real *restrict in, const real *w, long K, long rows, long columns,   \
                                 long row_step, long shift, real bias) {                                                       \
        vector sums[V];                                                                                                        \
        for (int j = 0; j < V; j++) sums[j] = (vector){0} + bias;                                                              \
        for (int ky = 0; ky < rows; ky++, in += row_step, w += K) {                                                            \
            const real *tap = in;                                                                                              \
            for (int kx = 0; kx < columns; kx++, tap += shift)                                                                 \
                for (int j = 0; j < V; j++) sums[j] += w[kx] * *(const vector *)(tap + LANES * j);                             \
        }                                                                                                                      \
        for (int j = 0; j < V; j++) *(vector *)(out + LANES * j) = sums[j];                                                    \
    }
BLOCK(8) BLOCK(4) BLOCK(2) BLOCK(1)

/* Correlation of padded rows with K×K weights: out[y] is a row of n numbers, out_row apart. */
static void convolve(real *restrict out, long out_row, const real *restrict in, const plane *p, const real *w, real bias) {
    long K = p->K, centre = K / 2;
    long row_step = p->dilation * p->row, n = p->n;
    for (long y = 0; y < p->H; y++) {
        /* Taps above the plane's first row and below its last are zero: ky runs from `first` on. */
        long first = max(0, centre - y / p->dilation), rows = min(K, centre + 1 + (p->H - 1 - y) / p->dilation) - first;
        const real *top = in + (y + (first - centre) * p->dilation) * p->row, *wy = w + first * K;
        real *o = out + y * out_row;
        long l = 0;
#define BLOCKS(V)                                                                                                              \
    for (; l + V * LANES <= n; l += V * LANES) {                                                                               \
        long left = max(0, centre - (l + V * LANES - 1) / p->shift);                                                            \
        long right = min(K, centre + 1 + (n - 1 - l) / p->shift);                                                               \
        block_##V(o + l, top + l + left * p->shift, wy + left, K, rows, right - left, row_step, p->shift, bias);               \
    }
        BLOCKS(8)
        BLOCKS(4)
        BLOCKS(2)
        BLOCKS(1)
        if (l < n && n >= LANES) {
            /* The last numbers of a row once more with those before them, which come out the same. */
            l = n - LANES;
            BLOCKS(1)
        }
        for (; l < n; l++) {
            real s = bias;
            for (int ky = 0; ky < rows; ky++)
                for (int kx = 0; kx < K; kx++) s += wy[ky * K + kx] * top[ky * row_step + l + kx * p->shift];
            o[l] = s;
        }
    }
}

/* The transposed convolution is the correlation with the weights turned round. */
static void convolve_transposed(real *restrict out, const real *restrict in, const plane *p, const real *w) {
    real turned[MAX_KERNEL * MAX_KERNEL];
    for (int k = 0; k < p->K * p->K; k++) turned[k] = w[p->K * p->K - 1 - k];
    convolve(out, p->n, in, p, turned, 0);
}

/* Gradient of the weights from that of the output, g: rows of n numbers. The taps of a kernel row share each g. */
#define WEIGHTS(K)                                                                                                             \
    static void weights_##K(real *restrict dw, const real *restrict g, const real *restrict in, const plane *p) {               \
        for (long ky = 0; ky < K; ky++) {                                                                                      \
            vector sums[K] = {{0}};                                                                                            \
            real rest[K] = {0};                                                                                                \
            long off = (ky - K / 2) * p->dilation;                                                                             \
            for (long y = max(0, -off); y < min(p->H, p->H - off); y++) {                                                      \
                const real *r = in + (y + off) * p->row, *q = g + y * p->n;                                                    \
                long l = 0;                                                                                                    \
                for (; l + LANES <= p->n; l += LANES) {                                                                        \
                    vector v = *(const vector *)(q + l);                                                                       \
                    for (int kx = 0; kx < K; kx++) sums[kx] += v * *(const vector *)(r + l + kx * p->shift);                   \
                }                                                                                                              \
                for (; l < p->n; l++)                                                                                          \
                    for (int kx = 0; kx < K; kx++) rest[kx] += q[l] * r[l + kx * p->shift];                                    \
            }                                                                                                                  \
            for (int kx = 0; kx < K; kx++) {                                                                                   \
                real s = rest[kx];                                                                                             \
                for (int j = 0; j < LANES; j++) s += sums[kx][j];                                                              \
                dw[ky * K + kx] = s;                                                                                           \
            }                                                                                                                  \
        }                                                                                                                      \
    }
WEIGHTS(1) WEIGHTS(3) WEIGHTS(5) WEIGHTS(7) WEIGHTS(9) WEIGHTS(11)

typedef void weights_function(real *, const real *, const real *, const plane *);
static weights_function *const weights_backward[] = {weights_1, weights_3, weights_5, weights_7, weights_9, weights_11};

/* (A, M, D) → (D, M, A): channels-last into these kernels' layout, and back. */
int turn(int threads, long A, long M, long D, const real *in, real *out) {
    int failed = 0;
#pragma omp parallel for schedule(static) num_threads(threads) reduction(| : failed)
    for (long m = 0; m < M; m++) {
        /* By way of the cache: rows are often a power of two apart, and would push each other out of it. */
        real *tile = scratch(A * D);
        if (!tile) {
            failed = 1;
            continue;
        }
        for (long a = 0; a < A; a++) memcpy(tile + a * D, in + (a * M + m) * D, D * sizeof *tile);
        for (long d = 0; d < D; d++) {
            real *row = out + (d * M + m) * A;
            for (long a = 0; a < A; a++) row[a] = tile[a * D + d];
        }
    }
    return failed;
}

int depthwise_forward(int threads, long training, long C, long H, long W, long B, long k1, long k2, long dilation, double eps,
                      double momentum, const real *x, const real *w1, const real *b1, const real *w2, const real *b2,
                      const real *gamma, const real *beta, real *u, real *v, real *y, real *mean, real *var,
                      real *running_mean, real *running_var) {
    plane p1 = plane_of(H, W, B, k1, 1), p2 = plane_of(H, W, B, k2, dilation);
    long N = H * p1.n;
    int failed = 0;
#pragma omp parallel for schedule(dynamic) num_threads(threads) reduction(| : failed)
    for (long c = 0; c < C; c++) {
        real *X = scratch(H * (p1.row + p2.row) + N);
        if (!X) {
            failed = 1;
            continue;
        }
        real *U = X + H * p1.row, *a = U + H * p2.row, *yc = y + c * N, *vc = v + c * N;
        const real *xc = x + c * N;
        pad_rows(X, xc, &p1);
        memset(U, 0, H * p2.row * sizeof *U);
        convolve(U + p2.pad, p2.row, X, &p1, w1 + c * k1 * k1, b1[c]);
        if (u) copy_rows(u + c * N, p2.n, U + p2.pad, p2.row, &p2);
        convolve(vc, p2.n, U, &p2, w2 + c * k2 * k2, b2[c]);
        norm bn = normalise(training, c, a, N, activate(a, vc, 0, N), eps, momentum, gamma, beta, mean, var, running_mean, running_var);
        for (long i = 0; i < N; i++) yc[i] = xc[i] + a[i] * bn.scale + bn.offset;
    }
    return failed;
}

/* `u` is the first convolution's output if that was kept, else 0. gx may be the same array as gy. */
int depthwise_backward(int threads, long C, long H, long W, long B, long k1, long k2, long dilation, double eps, const real *x,
                       const real *w1, const real *b1, const real *w2, const real *gamma, const real *u, const real *v,
                       const real *mean, const real *var, const real *gy, real *gx, real *dw1, real *db1, real *dw2, real *db2, real *dgamma,
                       real *dbeta) {
    plane p1 = plane_of(H, W, B, k1, 1), p2 = plane_of(H, W, B, k2, dilation);
    long N = H * p1.n;
    int failed = 0;
#pragma omp parallel for schedule(dynamic) num_threads(threads) reduction(| : failed)
    for (long c = 0; c < C; c++) {
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
            convolve(U + p2.pad, p2.row, P, &p1, w1c, b1[c]);
        weights_backward[k2 / 2](dw2 + c * k2 * k2, e, U, &p2);
        pad_rows(U, e, &p2);
        convolve_transposed(e, U, &p2, w2c);
        db1[c] = sum(e, N);
        weights_backward[k1 / 2](dw1 + c * k1 * k1, e, P, &p1);
        pad_rows(P, e, &p1);
        convolve_transposed(e, P, &p1, w1c);
#pragma GCC ivdep
        for (long i = 0; i < N; i++) gxc[i] = gc[i] + e[i];
    }
    return failed;
}

int activation_forward(int threads, long training, long C, long N, double eps, double momentum, const real *h, const real *bias,
                       const real *gamma, const real *beta, real *z, real *mean, real *var, real *running_mean,
                       real *running_var) {
#pragma omp parallel for schedule(dynamic) num_threads(threads)
    for (long c = 0; c < C; c++) {
        real *zc = z + c * N;
        norm bn = normalise(training, c, zc, N, activate(zc, h + c * N, bias[c], N), eps, momentum, gamma, beta, mean, var, running_mean, running_var);
        for (long i = 0; i < N; i++) zc[i] = zc[i] * bn.scale + bn.offset;
    }
    return 0;
}

int activation_backward(int threads, long C, long N, double eps, const real *h, const real *bias, const real *gamma,
                        const real *mean, const real *var, const real *gz, real *gh, real *dbias, real *dgamma, real *dbeta) {
#pragma omp parallel for schedule(dynamic) num_threads(threads)
    for (long c = 0; c < C; c++) {
        dbias[c] = normalise_activate_backward(gh + c * N, gz + c * N, h + c * N, bias[c], c, N, eps, gamma, mean, var, dgamma, dbeta);
    }
    return 0;
}

int encoding_forward(int threads, long training, long C, long N, double eps, double momentum, const real *h, const real *gamma,
                     const real *beta, real *z, real *mean, real *var, real *running_mean, real *running_var) {
#pragma omp parallel for schedule(dynamic) num_threads(threads)
    for (long c = 0; c < C; c++) {
        const real *hc = h + c * N;
        real *zc = z + c * N;
        norm bn = normalise(training, c, hc, N, training ? sum(hc, N) : 0, eps, momentum, gamma, beta, mean, var, running_mean, running_var);
        for (long i = 0; i < N; i++) zc[i] = gelu(hc[i] * bn.scale + bn.offset);
    }
    return 0;
}

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
