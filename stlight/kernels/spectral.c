/* Convolutions by frequency.

   A frequency has a real and an imaginary part, so that spectra are (F, 2, rows, columns). Numbers of columns are multiples of
   CHANNELS. Threads share the frequencies, and their number does not change the result.
*/
#include "parallel.h"

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

/* y (2, B, O) += x (2, B, I) w (2, I, O), at one frequency. */
static void multiply(long B, long I, long O, const real *x, const real *w, real *y) {
    long o = 0, b = 0;
    for (; o + LANES <= O; o += LANES, b = 0) { COLUMNS(vector, o) }
    for (; o < O; o += CHANNELS, b = 0) { COLUMNS(lanes, o) }
}

/* N rows of the weight gradient dw += conj(x)^T dy, from B rows of x and dy. */
#define WEIGHTS(V, N)                                                                                                          \
    static inline void weights_##V##_##N(long B, long I, long O, const real *x, const real *dy, real *dw) {                     \
        V re[N], im[N];                                                                                                        \
        for (int n = 0; n < N; n++) re[n] = im[n] = (V){0};                                                                  \
        for (long b = 0; b < B; b++) {                                                                                         \
            V dre = *(const V *)(dy + b * O), dim = *(const V *)(dy + b * O + B * O);                                          \
            for (int n = 0; n < N; n++) {                                                                                      \
                real p = x[b * I + n], q = x[b * I + n + B * I];                                                               \
                re[n] += p * dre, re[n] += q * dim, im[n] += p * dim, im[n] -= q * dre;                                        \
            }                                                                                                                  \
        }                                                                                                                      \
        for (int n = 0; n < N; n++) *(V *)(dw + n * O) += re[n], *(V *)(dw + n * O + I * O) += im[n];                          \
    }
WEIGHTS(vector, 8) WEIGHTS(lanes, 8)

/* dw (2, I, O) += conj(x)^T dy, of x (2, B, I) and dy (2, B, O), at one frequency. */
static void multiply_backward(long B, long I, long O, const real *x, const real *dy, real *dw) {
    for (long i = 0; i < I; i += CHANNELS) {
        long o = 0;
        for (; o + LANES <= O; o += LANES) weights_vector_8(B, I, O, x + i, dy + o, dw + i * O + o);
        for (; o < O; o += CHANNELS) weights_lanes_8(B, I, O, x + i, dy + o, dw + i * O + o);
    }
}

/* Sines and cosines of one axis: `rows` numbers of frequencies for n positions, and the same transposed. */
typedef struct {
    long n, rows;
    const real *of_positions, *of_frequencies;
} axis;

/* The two-dimensional transform of vectors, V wide. A frequency (k, l) follows from the products of the axes' cosines and sines:
   cos(a + b) = cc - ss and so on. Row 0 is the cosine of 0, rows 2k - 1 and 2k are the cosine and sine of k; if the period
   is even, the last row is a cosine without a sine. */
#define CACHE_LINES __attribute__((aligned(64)))
#define ROWS(V, S)                                                                                                             \
    for (; r + S <= rows; r += S) {                                                                                            \
        V s[S] = {{0}};                                                                                                        \
        for (long i = 0; i < n; i++)                                                                                           \
            for (int j = 0; j < S; j++) s[j] += matrix[(r + j) * n + i] * in[i * in_step];                                     \
        for (int j = 0; j < S; j++) out[(r + j) * out_step] = s[j];                                                            \
    }
#define TRANSFORM(V)                                                                                                           \
    static inline void apply_##V(V *out, long out_step, const V *in, long in_step, const real *matrix, long rows, long n) {      \
        long r = 0;                                                                                                            \
        ROWS(V, 5) ROWS(V, 4) ROWS(V, 1)                                                                                       \
    }                                                                                                                          \
    /* One vector of x (P, N) to one of spectrum (F, 2, N). */                                                                 \
    static void to_spectrum_##V(const axis *h, const axis *w, const real *x, long N, real *spectrum) {                          \
        long R = w->rows;                                                                                                      \
        V in[w->n] CACHE_LINES, half[h->n * R] CACHE_LINES, all[h->rows * R] CACHE_LINES;                                                                          \
        for (long y = 0; y < h->n; y++) {                                                                                      \
            for (long p = 0; p < w->n; p++) in[p] = *(const V *)(x + (y * w->n + p) * N);                                      \
            apply_##V(half + y * R, 1, in, 1, w->of_positions, R, w->n);                                                       \
        }                                                                                                                      \
        for (long l = 0; l < R; l++) apply_##V(all + l, R, half + l, R, h->of_positions, h->rows, h->n);                       \
        FOR_FREQUENCIES {                                                                                                      \
            V cc = all[k * R + l], cs = l1 ? all[k * R + l1] : (V){0}, sc = k1 ? all[k1 * R + l] : (V){0};                     \
            V ss = k1 && l1 ? all[k1 * R + l1] : (V){0};                                                                       \
            *(V *)spectrum = cc - ss, *(V *)(spectrum + N) = -cs - sc, spectrum += 2 * N;                                      \
            if (k1 && l1) *(V *)spectrum = cc + ss, *(V *)(spectrum + N) = sc - cs, spectrum += 2 * N;                         \
        }                                                                                                                      \
    }                                                                                                                          \
    /* The transposed of it. */                                                                                                \
    static void from_spectrum_##V(const axis *h, const axis *w, const real *spectrum, long N, real *x) {                        \
        long R = w->rows;                                                                                                      \
        V out[w->n] CACHE_LINES, half[h->n * R] CACHE_LINES, all[h->rows * R] CACHE_LINES;                                                                         \
        FOR_FREQUENCIES {                                                                                                      \
            V re = *(const V *)spectrum, im = *(const V *)(spectrum + N), re2 = {0}, im2 = {0};                                \
            spectrum += 2 * N;                                                                                                 \
            if (k1 && l1) re2 = *(const V *)spectrum, im2 = *(const V *)(spectrum + N), spectrum += 2 * N;                     \
            all[k * R + l] = re + re2;                                                                                         \
            if (l1) all[k * R + l1] = -im - im2;                                                                               \
            if (k1) all[k1 * R + l] = im2 - im;                                                                                \
            if (k1 && l1) all[k1 * R + l1] = re2 - re;                                                                         \
        }                                                                                                                      \
        for (long l = 0; l < R; l++) apply_##V(half + l, R, all + l, R, h->of_frequencies, h->n, h->rows);                     \
        for (long y = 0; y < h->n; y++) {                                                                                      \
            apply_##V(out, 1, half + y * R, 1, w->of_frequencies, w->n, R);                                                    \
            for (long p = 0; p < w->n; p++) *(V *)(x + (y * w->n + p) * N) = out[p];                                           \
        }                                                                                                                      \
    }
/* Loop over the rows k and l of cosines; k1 and l1 are those of their sines, or 0. */
#define FOR_FREQUENCIES                                                                                                        \
    for (long k = 0; k < h->rows; k += k ? 2 : 1)                                                                              \
        for (long l = 0, k1 = k && k + 1 < h->rows ? k + 1 : 0, l1; l1 = l && l + 1 < R ? l + 1 : 0, l < R; l += l ? 2 : 1)
TRANSFORM(vector) TRANSFORM(lanes)

static void to_spectrum(const axis *h, const axis *w, const real *x, long N, real *spectrum) {
    SHARED
    for (long n = 0; n < N / LANES; n++) to_spectrum_vector(h, w, x + n * LANES, N, spectrum + n * LANES);
    SHARED
    for (long n = N / LANES * LANES; n < N; n += CHANNELS) to_spectrum_lanes(h, w, x + n, N, spectrum + n);
}

static void from_spectrum(const axis *h, const axis *w, const real *spectrum, long N, real *x) {
    SHARED
    for (long n = 0; n < N / LANES; n++) from_spectrum_vector(h, w, spectrum + n * LANES, N, x + n * LANES);
    SHARED
    for (long n = N / LANES * LANES; n < N; n += CHANNELS) from_spectrum_lanes(h, w, spectrum + n, N, x + n);
}

#define AXES axis h = {H, Hr, h1, h2}, w = {W, Wr, w1, w2}

/* spectrum (F, 2, N) of x (P, N), and the transposed transform. */
void transform(int threads, long F, long H, long W, long Hr, long Wr, const real *h1, const real *h2, const real *w1,
               const real *w2, long N, const real *x, real *spectrum) {
    AXES;
    PARALLEL to_spectrum(&h, &w, x, N, spectrum);
}

void transform_back(int threads, long F, long H, long W, long Hr, long Wr, const real *h1, const real *h2, const real *w1,
                    const real *w2, long N, const real *spectrum, real *x) {
    AXES;
    PARALLEL from_spectrum(&h, &w, spectrum, N, x);
}

enum { TERMS = 4 };

/* out (P, B, O) = the sum of the convolutions of up to four x (P, B, I), whose weights have the spectra w (F, 2, I, O). The last
   of them may be 0. Returns 1 if there was no memory, otherwise 0. */
int convolve(int threads, long F, long H, long W, long Hr, long Wr, const real *h1, const real *h2, const real *w1, const real *w2,
             long B, long O, real *out, long I0, const real *x0, const real *u0, long I1, const real *x1, const real *u1, long I2,
             const real *x2, const real *u2, long I3, const real *x3, const real *u3) {
    AXES;
    const long I[TERMS] = {I0, I1, I2, I3}, D = 2 * F * B;
    const real *x[TERMS] = {x0, x1, x2, x3}, *u[TERMS] = {u0, u1, u2, u3};
    real *total = scratch(D * (O + I0 + I1 + I2 + I3)), *spectra[TERMS] = {total + D * O};
    if (!total) return 1;
    for (int k = 1; k < TERMS; k++) spectra[k] = spectra[k - 1] + D * I[k - 1];
    PARALLEL {
        FLUSH_DENORMALS
        for (int k = 0; k < TERMS && x[k]; k++) to_spectrum(&h, &w, x[k], B * I[k], spectra[k]);
        SHARED
        for (long f = 0; f < F; f++) {
            memset(total + f * 2 * B * O, 0, 2 * B * O * sizeof *total);
            for (int k = 0; k < TERMS && x[k]; k++)
                multiply(B, I[k], O, spectra[k] + f * 2 * B * I[k], u[k] + f * 2 * I[k] * O, total + f * 2 * B * O);
        }
        from_spectrum(&h, &w, total, B * O, out);
    }
    return 0;
}

/* The gradients dx of each x, unless 0, and du of their spectra, which are added. v (F, 2, O, I) are the conjugate transposed
   of the spectra. */
int convolve_backward(int threads, long F, long H, long W, long Hr, long Wr, const real *h1, const real *h2, const real *w1,
                      const real *w2, long B, long O, const real *dout, long I0, const real *x0, const real *v0, real *dx0, real *du0,
                      long I1, const real *x1, const real *v1, real *dx1, real *du1, long I2, const real *x2, const real *v2,
                      real *dx2, real *du2, long I3, const real *x3, const real *v3, real *dx3, real *du3) {
    AXES;
    const long I[TERMS] = {I0, I1, I2, I3}, D = 2 * F * B;
    const real *x[TERMS] = {x0, x1, x2, x3}, *v[TERMS] = {v0, v1, v2, v3};
    real *dx[TERMS] = {dx0, dx1, dx2, dx3}, *du[TERMS] = {du0, du1, du2, du3};
    real *total = scratch(D * (O + I0 + I1 + I2 + I3)), *spectra[TERMS] = {total + D * O};
    if (!total) return 1;
    for (int k = 1; k < TERMS; k++) spectra[k] = spectra[k - 1] + D * I[k - 1];
    PARALLEL {
        FLUSH_DENORMALS
        to_spectrum(&h, &w, dout, B * O, total);
        for (int k = 0; k < TERMS && x[k]; k++) to_spectrum(&h, &w, x[k], B * I[k], spectra[k]);
        SHARED
        for (long f = 0; f < F; f++)
            for (int k = 0; k < TERMS && x[k]; k++) {
                real *dy = total + f * 2 * B * O, *spectrum = spectra[k] + f * 2 * B * I[k];
                multiply_backward(B, I[k], O, spectrum, dy, du[k] + f * 2 * I[k] * O);
                if (!dx[k]) continue;
                memset(spectrum, 0, 2 * B * I[k] * sizeof *spectrum);
                multiply(B, O, I[k], dy, v[k] + f * 2 * I[k] * O, spectrum);
            }
        for (int k = 0; k < TERMS; k++)
            if (dx[k]) from_spectrum(&h, &w, spectra[k], B * I[k], dx[k]);
    }
    return 0;
}
