/* Convolutions of few channels that keep the frame's size, for which libraries spend most of the time on calling themselves.

   Arrays are (B, G, C, H, W), with H a multiple of ROWS and W of `lanes`. Each of G groups maps its I channels to O, with weights
   (O, I, K, K), where K is 3, 5, 7 or 11. Threads share clips or channels, and their number does not change the result.
*/
#include "vectors.h"
#include "numerics.h"

enum { ROWS = 4, OUT = 4 };
typedef real lanes __attribute__((vector_size(32), aligned(sizeof(real)), may_alias));

/* Copy frames (N, H, W) into the middle of (N, H + 2 p, row), zero elsewhere. */
static void pad(real *out, const real *in, long N, long H, long W, long p, long row) {
    for (long n = 0; n < N; n++, out += (H + 2 * p) * row) {
        memset(out, 0, (H + 2 * p) * row * sizeof *out);
        for (long y = 0; y < H; y++) memcpy(out + (y + p) * row + p, in + (n * H + y) * W, W * sizeof *in);
    }
}

/* outs outputs of one clip at ROWS rows and V positions. `step` is between inputs, `next` between the weights of outputs. */
#define CONVOLVE(V, S)                                                                                                         \
    static inline void convolve_##V##_##S(long I, long K, const real *in, long step, long row, const real *w, long next,        \
                                          const real *bias, real *out, long plane, long W) {                                   \
        V sum[S][ROWS];                                                                                                        \
        for (int o = 0; o < S; o++)                                                                                            \
            for (int r = 0; r < ROWS; r++) sum[o][r] = (V){0} + (bias ? bias[o] : 0);                                          \
        for (long i = 0; i < I; i++)                                                                                           \
            for (long ky = 0; ky < K; ky++)                                                                                    \
                for (long kx = 0; kx < K; kx++) {                                                                              \
                    const real *x = in + i * step + ky * row + kx, *tap = w + (i * K + ky) * K + kx;                           \
                    for (int r = 0; r < ROWS; r++)                                                                             \
                        for (int o = 0; o < S; o++) sum[o][r] += tap[o * next] * *(const V *)(x + r * row);                    \
                }                                                                                                              \
        for (int o = 0; o < S; o++)                                                                                            \
            for (int r = 0; r < ROWS; r++) *(V *)(out + o * plane + r * W) = sum[o][r];                                        \
    }
CONVOLVE(vector, 4) CONVOLVE(vector, 1) CONVOLVE(lanes, 4) CONVOLVE(lanes, 1)

#define POSITIONS(V, S) convolve_##V##_##S(I, K, in + y * row + x, step, row, w + o * next, next, bias ? bias + o : 0, to + y * W + x, H * W, W)

/* out (B, G, O, H, W) = the convolution of x (B, G, I, H, W), plus the bias unless it is 0. Returns 1 if there was no memory. */
int convolve_direct(int threads, long B, long G, long I, long O, long H, long W, long K, const real *X, const real *weight,
                   const real *biases, real *out) {
    long row = W + K - 1, step = (H + K - 1) * row, next = I * K * K;
    int failed = 0;
#pragma omp parallel for schedule(static) num_threads(threads) reduction(| : failed)
    for (long n = 0; n < B * G; n++) {
        const real *w = weight + n % G * O * next, *bias = biases ? biases + n % G * O : 0;
        real *in = scratch(I * step);
        if (!in) {
            failed = 1;
            continue;
        }
        pad(in, X + n * I * H * W, I, H, W, K / 2, row);
        for (long o = 0; o < O; o += O - o < OUT ? 1 : OUT)
            for (long y = 0; y < H; y += ROWS) {
                real *to = out + (n * O + o) * H * W;
                long x = 0;
                for (; x + LANES <= W; x += LANES)
                    if (O - o < OUT) POSITIONS(vector, 1);
                    else POSITIONS(vector, 4);
                for (; x < W; x += 8)
                    if (O - o < OUT) POSITIONS(lanes, 1);
                    else POSITIONS(lanes, 4);
            }
    }
    return failed;
}

/* The weight gradient of S outputs and one input, summed over all clips. */
#define WEIGHTS(V, K, S)                                                                                                       \
    static void weights_##V##_##K##_##S(long B, long H, long W, const real *x, long x_step, long row, const real *dy,           \
                                        long dy_step, long next, real *dw) {                                                   \
        for (int ky = 0; ky < K; ky++) {                                                                                       \
            V sum[S][K] = {{{0}}};                                                                                             \
            for (long b = 0; b < B; b++)                                                                                       \
                for (long y = 0; y < H; y++)                                                                                   \
                    for (long at = 0; at < W; at += sizeof(V) / sizeof(real)) {                                                \
                        const real *in = x + b * x_step + (y + ky) * row + at, *g = dy + b * dy_step + y * W + at;             \
                        for (int kx = 0; kx < K; kx++)                                                                         \
                            for (int o = 0; o < S; o++) sum[o][kx] += *(const V *)(in + kx) * *(const V *)(g + o * H * W);     \
                    }                                                                                                          \
            for (int o = 0; o < S; o++)                                                                                        \
                for (int kx = 0; kx < K; kx++) {                                                                               \
                    real total = 0;                                                                                            \
                    for (unsigned l = 0; l < sizeof(V) / sizeof(real); l++) total += sum[o][kx][l];                            \
                    dw[o * next + ky * K + kx] = total;                                                                        \
                }                                                                                                              \
        }                                                                                                                      \
    }
#define SIZES(V, S) WEIGHTS(V, 3, S) WEIGHTS(V, 5, S) WEIGHTS(V, 7, S) WEIGHTS(V, 11, S)
SIZES(vector, 4) SIZES(vector, 1) SIZES(lanes, 4) SIZES(lanes, 1)
#define OF_SIZE(V, S) {weights_##V##_3_##S, weights_##V##_5_##S, weights_##V##_7_##S, weights_##V##_11_##S}
typedef void weights_function(long, long, long, const real *, long, long, const real *, long, long, real *);
static weights_function *const weights_functions[2][2][4] = {{OF_SIZE(vector, 4), OF_SIZE(vector, 1)}, {OF_SIZE(lanes, 4), OF_SIZE(lanes, 1)}};

/* The gradients of x, weight and bias from that of the output; dx and db may be 0. `flipped` has the size of the weights. */
int convolve_direct_backward(int threads, long B, long G, long I, long O, long H, long W, long K, const real *x, const real *w,
                            const real *dy, real *flipped, real *dx, real *dw, real *db) {
    long row = W + K - 1, step = (H + K - 1) * row, taps = K * K, blocks = O / OUT + O % OUT;
    int failed = 0;
    if (dx) {
        for (long n = 0; n < G * I * O; n++) {
            long i = n / O % I, o = n % O, g = n / (I * O);
            for (long k = 0; k < taps; k++) flipped[n * taps + k] = w[((g * O + o) * I + i + 1) * taps - 1 - k];
        }
        failed = convolve_direct(threads, B, G, O, I, H, W, K, dy, flipped, 0, dx);
    }
    real *in = scratch(B * G * I * step);
    if (!in) return 1;
    pad(in, x, B * G * I, H, W, K / 2, row);
#pragma omp parallel for schedule(static) num_threads(threads)
    for (long n = 0; n < G * I * blocks; n++) {
        long i = n / blocks % I, g = n / blocks / I, block = n % blocks, single = block >= O / OUT;
        long o = g * O + (single ? block - O / OUT + O / OUT * OUT : block * OUT);
        weights_function *weights = weights_functions[W % LANES != 0][single][K == 11 ? 3 : K / 2 - 1];
        weights(B, H, W, in + (g * I + i) * step, G * I * step, row, dy + o * H * W, G * O * H * W, I * taps, dw + (o * I + i) * taps);
    }
    if (db)
        for (long o = 0; o < G * O; o++) {
            double total = 0;
            for (long b = 0; b < B; b++) total += sum(dy + (b * G * O + o) * H * W, H * W);
            db[o] = total;
        }
    return failed;
}
