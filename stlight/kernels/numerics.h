/* Sums, GELU and BatchNorm for one channel. */

/* gelu(x) = x Φ(x), and its slope Φ(x) + x φ(x), are both ½ plus an odd function: ½ + x p(x²). */
/* Minimax polynomials for p on [0, 5.25²] in t = 2 x² / 5.25² - 1, highest power first, summed in two chains, in half the time of
   exp and a division. Beyond 5.25 both functions are within 4e-7 and 2.2e-6 of their limits. The error, mostly rounding, is below
   4e-7 of gelu for |x| < 2, where most values lie, and at most 1.1e-6 of gelu, or 1.3e-7 of a large value, and 2.2e-6 of its
   slope. */
#define REACH 5.25f
static inline float bounded_below(float x) { return x < -REACH ? -REACH : x; }
#define ODD_HALF(NAME, ...)                                                                                                    \
    static inline float NAME(float x) {                                                                                        \
        static const float p[16] = {__VA_ARGS__};                                                                              \
        float b = bounded_below(x), c = b > REACH ? REACH : b, t = c * c * (2 / (REACH * REACH)) - 1, t2 = t * t;              \
        float s0 = p[0], s1 = p[1];                                                                                            \
        for (int k = 2; k < 16; k += 2) s0 = s0 * t2 + p[k], s1 = s1 * t2 + p[k + 1];                                          \
        return 0.5f + (s0 * t + s1) * c;                                                                                       \
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
/* The lower limit of `normal_cdf` is 0 but for rounding, which a large x would magnify. */
static inline float gelu(float x) { return bounded_below(x) * normal_cdf(x); }

/* Long sums: in `real` within a block and in double over the blocks, which is as accurate as PyTorch. */
enum { SUMMED_AT_ONCE = 512 };
#define FOR_BLOCKS(N) for (long i0 = 0, i1; i1 = min(i0 + SUMMED_AT_ONCE, N), i0 < N; i0 = i1)
#define FOR_BLOCK for (long i = i0; i < i1; i++)

/* Sum of N numbers. */
static double sum(const real *a, long N) {
    double total = 0;
    FOR_BLOCKS(N) {
        real s = 0;
        FOR_BLOCK s += a[i];
        total += s;
    }
    return total;
}

/* Compute a = gelu(x + bias) of N numbers; return the sum of a. */
static double activate(real *restrict a, const real *restrict x, real bias, long N) {
    double total = 0;
    FOR_BLOCKS(N) {
        real s = 0;
        FOR_BLOCK s += a[i] = gelu(x[i] + bias);
        total += s;
    }
    return total;
}

/* BatchNorm of one channel: out = in · scale + offset. */
typedef struct {
    real scale, offset;
} norm;

/* BatchNorm of channel c: N values a with the sum `total`; gamma, beta and statistics are (C). */
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

/* The gradient of a BatchNorm's input a from that of its output g: da = g · by_g + (a - mean) · by_a + rest. */
typedef struct {
    real by_g, by_a, rest;
} norm_gradient;

/* Compute it for channel c, and the gradients of gamma and beta, from the sums over N values of g and of g (a - mean). */
static norm_gradient normalise_backward(long c, long N, double sum_g, double sum_ga, double eps, const real *gamma, const real *var,
                                        real *dgamma, real *dbeta) {
    double invstd = 1 / sqrt(var[c] + eps), scale = gamma[c] * invstd, by_a = -scale * invstd * invstd * sum_ga / N;
    dgamma[c] = sum_ga * invstd;
    dbeta[c] = sum_g;
    return (norm_gradient){scale, by_a, -scale * sum_g / N};
}

/* Compute the gradient dx through z = BN(gelu(x + bias)) of channel c from the gradient g of z; return its sum. All are H rows of n
   numbers; those of dx are `row` apart. dx may be g. `a` is scratch. What BN took is computed from z, less `residual` if there is
   one, faster than gelu, unless gamma is so small that rounding would show. */
static double normalise_activate_backward(real *dx, long row, real *restrict a, const real *g, const real *restrict x, real bias,
                                          const real *restrict z, const real *restrict residual, long c, long H, long n, double eps,
                                          const real *gamma, const real *beta, const real *mean, const real *var, real *dgamma,
                                          real *dbeta) {
    /* a is gelu - mean. */
    real m = mean[c], scale = gamma[c] / sqrt(var[c] + eps), back = 1 / scale, offset = beta[c];
    double sum_g = 0, sum_ga = 0, total = 0;
    FOR_BLOCKS(H * n) {
        real s = 0, t = 0;
        if (fabsf(gamma[c]) < 0.1f)
            FOR_BLOCK a[i] = gelu(x[i] + bias) - m;
        else if (residual)
            FOR_BLOCK a[i] = (z[i] - residual[i] - offset) * back;
        else
            FOR_BLOCK a[i] = (z[i] - offset) * back;
        FOR_BLOCK {
            s += g[i];
            t += g[i] * a[i];
        }
        sum_g += s;
        sum_ga += t;
    }
    norm_gradient bn = normalise_backward(c, H * n, sum_g, sum_ga, eps, gamma, var, dgamma, dbeta);
    for (long y = 0; y < H; y++, dx += row, g += n, a += n, x += n)
        FOR_BLOCKS(n) {
            real s = 0;
#pragma GCC ivdep
            FOR_BLOCK s += dx[i] = (g[i] * bn.by_g + a[i] * bn.by_a + bn.rest) * gelu_slope(x[i] + bias);
            total += s;
        }
    return total;
}
