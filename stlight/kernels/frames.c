/* Draw clips of moving digits and compare frames. */
#include <stdint.h>
#include <string.h>

/* Paste digits (N, G, size, size) in 0 … 255 at offsets (N, G, T) into frames (N, T, side, side) in [0, 1]; the maximum wins. */
void paste(int threads, long N, long G, long T, long size, long side, const uint8_t *digits, const int64_t *top,
           const int64_t *left, float *frames) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (long n = 0; n < N; n++) {
        float scaled[G * size * size];
        /* In double, so that the result is the nearest float whatever division the compiler chooses. */
        for (long i = 0; i < G * size * size; i++) scaled[i] = digits[n * G * size * size + i] / 255.0;
        memset(frames + n * T * side * side, 0, T * side * side * sizeof(float));
        for (long i = 0; i < T * G; i++) {
            long t = i / G, g = i % G, at = (n * G + g) * T + t;
            float *corner = frames + (n * T + t) * side * side + top[at] * side + left[at];
            const float *digit = scaled + g * size * size;
            for (long row = 0; row < size; row++)
                for (long column = 0; column < size; column++) {
                    float *pixel = corner + row * side + column, value = digit[row * size + column];
                    *pixel = *pixel > value ? *pixel : value;
                }
        }
    }
}

enum { WINDOW = 7, SUMS = 5 };

/* Sums of WINDOW neighbours: count - WINDOW + 1 of them. */
static void sum_neighbours(double *restrict out, const double *restrict in, long count) {
    for (long i = 0; i + WINDOW <= count; i++)
        out[i] = ((in[i] + in[i + 1]) + (in[i + 2] + in[i + 3])) + ((in[i + 4] + in[i + 5]) + in[i + 6]);
}

/* Add one row to the sums of x, y, x², y² and x y, from which means and covariances follow. */
static void add_row(double *restrict sums, const float *restrict x, const float *restrict y, long W, double sign) {
    for (long j = 0; j < W; j++) {
        double a = x[j], b = y[j];
        sums[j] += sign * a;
        sums[W + j] += sign * b;
        sums[2 * W + j] += sign * a * a;
        sums[3 * W + j] += sign * b * b;
        sums[4 * W + j] += sign * a * b;
    }
}

/* Structural similarity of N pairs of frames (H, W) for R data ranges, (R, N): 7×7 uniform window, sample covariance, K1 and K2,
   mean over the windows that lie wholly inside. Running sums move down the frame a row at a time, in double. */
void structural_similarity(int threads, long N, long H, long W, long R, double k1, double k2, const double *ranges,
                           const float *x, const float *y, double *out) {
    long across = W - WINDOW + 1, down = H - WINDOW + 1;
#pragma omp parallel for schedule(static) num_threads(threads)
    for (long n = 0; n < N; n++) {
        double columns[SUMS * W], windows[SUMS * W];
        memset(columns, 0, sizeof(columns));
        const float *xn = x + n * H * W, *yn = y + n * H * W;
        for (long r = 0; r < R; r++) out[r * N + n] = 0;
        for (long row = 0; row < H; row++) {
            add_row(columns, xn + row * W, yn + row * W, W, 1);
            if (row >= WINDOW) add_row(columns, xn + (row - WINDOW) * W, yn + (row - WINDOW) * W, W, -1);
            if (row < WINDOW - 1) continue;
            for (int s = 0; s < SUMS; s++) sum_neighbours(windows + s * W, columns + s * W, W);
            const double *sx = windows, *sy = sx + W, *sxx = sy + W, *syy = sxx + W, *sxy = syy + W;
            const double count = WINDOW * WINDOW, to_sample = count / (count - 1);
            for (long r = 0; r < R; r++) {
                double c1 = k1 * ranges[r] * k1 * ranges[r], c2 = k2 * ranges[r] * k2 * ranges[r], total = 0;
                for (long j = 0; j < across; j++) {
                    double mx = sx[j] / count, my = sy[j] / count, product = mx * my, squares = mx * mx + my * my;
                    double covariance = to_sample * (sxy[j] / count - product);
                    double variances = to_sample * ((sxx[j] + syy[j]) / count - squares);
                    total += (2 * product + c1) * (2 * covariance + c2) / ((squares + c1) * (variances + c2));
                }
                out[r * N + n] += total / (across * down);
            }
        }
    }
}

/* Sums over `count` numbers for N pairs, (3, N): squared error, absolute error, squared error with x clipped to [0, 1]. */
void errors(int threads, long N, long count, const float *x, const float *y, double *out) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (long n = 0; n < N; n++) {
        const float *xn = x + n * count, *yn = y + n * count;
        double squared = 0, absolute = 0, clipped = 0;
        for (long i = 0; i < count; i++) {
            double a = xn[i], b = yn[i], d = a - b, inside = a < 0 ? 0 : a > 1 ? 1 : a, e = inside - b;
            squared += d * d;
            absolute += d < 0 ? -d : d;
            clipped += e * e;
        }
        out[n] = squared;
        out[N + n] = absolute;
        out[2 * N + n] = clipped;
    }
}
