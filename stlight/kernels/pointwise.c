/* Pointwise convolutions h = W y of (C, H, W, B), as matrix products W (M, K) × y (K, N) with N = H·W·B, and their gradients.

   Rows are long, and their numbers of a few columns lie in few sets of the caches. So a block of columns is copied while the first
   outputs are computed from it, and the numbers of the next block are fetched meanwhile, evenly, because a core waits for memory
   if it asks for many cache lines at once. MKL computes such products with two threads in 1.4 times the time.

   Every function returns 0, or 1 if there was no memory. The number of threads does not change the result.
*/
#include "vectors.h"

/* Outputs that are kept in registers: ROWS rows of WIDTH vectors. A block has as many columns. */
enum { ROWS = REGISTERS == 32 ? 8 : 4, WIDTH = 3, COLUMNS = WIDTH * LANES };

static inline long rounded(long n, long unit) { return (n + unit - 1) / unit * unit; }

/* The cache lines of the next block of columns, which are fetched one at a time. */
typedef struct {
    const real *row;
    long N, column, step;
} lines;

/* Those of the block that follows column n's, in `rows` rows of N numbers, for `times` fetches; none, if it is not whole. */
static lines lines_beyond(const real *array, long rows, long N, long n, long times) {
    static const real none[1];
    return n + 2 * COLUMNS <= N ? (lines){array + n + COLUMNS, N, 0, min(COLUMNS, rows * COLUMNS / times)} : (lines){none, 0, 0, 0};
}

#define FETCH(LINES, TO_WRITE)                                                                                                 \
    __builtin_prefetch((LINES).row + (LINES).column, TO_WRITE, 2);                                                              \
    if (((LINES).column += (LINES).step) >= COLUMNS) (LINES).column -= COLUMNS, (LINES).row += (LINES).N;

/* Weights (M, K), w_row and w_column apart, for `multiply`: (M / ROWS, K, ROWS), with zeros below the last row. */
static void pack_weights(real *packed, long M, long K, const real *w, long w_row, long w_column) {
    for (long m = 0; m < rounded(M, ROWS); m++)
        for (long k = 0; k < K; k++) packed[(m / ROWS * K + k) * ROWS + m % ROWS] = m < M ? w[m * w_row + k * w_column] : 0;
}

/* A block (K, COLUMNS) of `columns` columns of y, with zeros beyond them. */
static void pack_columns(real *packed, long K, long N, const real *y, long columns) {
    for (long k = 0; k < K; k++, packed += COLUMNS, y += N) {
        memset(packed, 0, COLUMNS * sizeof *packed);
        memcpy(packed, y, columns * sizeof *packed);
    }
}

/* ROWS rows of outputs for a block of y, which is copied unless copy is 0. */
INLINE void multiply_rows(real *restrict h, long h_row, const real *restrict w, const real *restrict y, long y_row, long K,
                          real *restrict copy, lines *in, lines *out) {
    vector s[ROWS][WIDTH];
    lines next_in = *in, next_out = *out;
    for (int r = 0; r < ROWS; r++)
        for (int v = 0; v < WIDTH; v++) s[r][v] = (vector){0};
    for (long k = 0; k < K; k++, y += y_row, w += ROWS) {
        vector x[WIDTH];
        for (int v = 0; v < WIDTH; v++) {
            x[v] = LOAD(y + v * LANES);
            if (copy) *(vector *)(copy + k * COLUMNS + v * LANES) = x[v];
        }
        FETCH(next_in, 0)
        FETCH(next_out, 1)
        for (int r = 0; r < ROWS; r++)
            for (int v = 0; v < WIDTH; v++) s[r][v] += w[r] * x[v];
    }
    for (int r = 0; r < ROWS; r++)
        for (int v = 0; v < WIDTH; v++) *(vector *)(h + r * h_row + v * LANES) = s[r][v];
    *in = next_in, *out = next_out;
}

/* The block of h (M, N) at column n from that of y (K, N), which is left in `packed` (K, COLUMNS). */
static void multiply(long M, long K, long N, const real *w, const real *y, real *h, long n, real *packed) {
    real part[ROWS * COLUMNS];
    long columns = min(COLUMNS, N - n), steps = rounded(M, ROWS) / ROWS * K;
    lines in = lines_beyond(y, K, N, n, steps), out = lines_beyond(h, M, N, n, steps);
    if (columns < COLUMNS) pack_columns(packed, K, N, y + n, columns);
    for (long m = 0; m < M; m += ROWS, w += ROWS * K) {
        long whole = m + ROWS <= M && columns == COLUMNS, row = whole ? N : COLUMNS;
        real *to = whole ? h + m * N + n : part;
        if (m == 0 && columns == COLUMNS)
            multiply_rows(to, row, w, y + n, N, K, packed, &in, &out);
        else
            multiply_rows(to, row, w, packed, COLUMNS, K, 0, &in, &out);
        for (long r = 0; r < min(ROWS, M - m) && !whole; r++) memcpy(h + (m + r) * N + n, part + r * COLUMNS, columns * sizeof *h);
    }
}

/* Transpose LANES vectors: at each size d, exchange the squares beside the diagonal. */
INLINE void transpose(vector *a) {
#ifdef __clang__
    for (int i = 0; i < LANES; i++)
        for (int j = 0; j < i; j++) {
            real upper = a[j][i];
            a[j][i] = a[i][j], a[i][j] = upper;
        }
#else
    int __attribute__((vector_size(VECTOR_BYTES))) lane;
    for (int j = 0; j < LANES; j++) lane[j] = j;
#pragma GCC unroll 4
    for (int d = LANES / 2; d > 0; d /= 2)
#pragma GCC unroll 16
        for (int i = 0; i < LANES; i++)
            if (!(i & d)) {
                vector upper = a[i], lower = a[i + d];
                a[i] = __builtin_shuffle(upper, lower, lane + (lane & d) / d * (LANES - d));
                a[i + d] = __builtin_shuffle(upper, lower, lane + (lane & d) / d * (LANES - d) + d);
            }
#endif
}

/* `columns` columns of y (K, N) as rows (COLUMNS, row) for `add_products`, with zeros around them. */
static void pack_transposed(real *packed, long row, long K, long N, const real *y, long columns) {
    for (long k = 0; k < row; k += LANES)
        for (long n = 0; n < COLUMNS; n += LANES) {
            vector a[LANES] = {{0}};
            if (n + LANES <= columns && k + LANES <= K)
                for (int i = 0; i < LANES; i++) a[i] = LOAD(y + (k + i) * N + n);
            else
                for (long i = 0; i < min(LANES, K - k); i++)
                    for (long j = 0; j < min(LANES, columns - n); j++) a[i][j] = y[(k + i) * N + n + j];
            transpose(a);
            for (int i = 0; i < LANES; i++) *(vector *)(packed + (n + i) * row + k) = a[i];
        }
}

/* Add the products of a block of ROWS rows of g and of V vectors of y's rows, transposed, to the sums (ROWS, V·LANES). */
INLINE void add_products(int V, real *restrict sums, const real *restrict g, const real *restrict y, long row, lines *of_y,
                         lines *of_g) {
    vector s[ROWS][2];
    lines next_y = *of_y, next_g = *of_g;
    for (int r = 0; r < ROWS; r++)
        for (int v = 0; v < V; v++) s[r][v] = (vector){0};
    for (long n = 0; n < COLUMNS; n++, y += row) {
        vector x[2];
        for (int v = 0; v < V; v++) x[v] = LOAD(y + v * LANES);
        FETCH(next_y, 0)
        FETCH(next_g, 0)
        for (int r = 0; r < ROWS; r++)
            for (int v = 0; v < V; v++) s[r][v] += g[r * COLUMNS + n] * x[v];
    }
    for (int r = 0; r < ROWS; r++)
        for (int v = 0; v < V; v++) *(vector *)(sums + r * row + v * LANES) += s[r][v];
    *of_y = next_y, *of_g = next_g;
}

/* h (M, N) = w (M, K) y (K, N). */
int pointwise_forward(int threads, long M, long K, long N, const real *w, const real *y, real *h) {
    int failed = 0;
#pragma omp parallel num_threads(threads) reduction(| : failed)
    {
        real *packed = scratch(K * (COLUMNS + rounded(M, ROWS))), *packed_w = packed + K * COLUMNS;
        failed = !packed;
        if (packed) pack_weights(packed_w, M, K, w, K, 1);
#pragma omp for schedule(static)
        for (long n = 0; n < N; n += COLUMNS)
            if (packed) multiply(M, K, N, packed_w, y, h, n, packed);
    }
    return failed;
}

/* From g (M, N), the gradient of h: those of w, dw (M, K), and of y, gy (K, N), unless it is 0. */
int pointwise_backward(int threads, long M, long K, long N, const real *w, const real *y, const real *g, real *gy, real *dw) {
    long blocks = rounded(N, COLUMNS) / COLUMNS, row = rounded(K, LANES), rows = rounded(M, ROWS);
    /* Each part of the columns has sums of its own, which are added in order. */
    long parts = min(16, max(1, blocks / 10));
    real *sums = calloc(parts * rows * row, sizeof *sums);
    int failed = !sums;
#pragma omp parallel num_threads(threads) reduction(| : failed)
    {
        real *packed_g = scratch((rows + row) * COLUMNS + M * rounded(K, ROWS)), *packed_y = packed_g + rows * COLUMNS;
        real *packed_w = packed_y + row * COLUMNS;
        int ready = sums && packed_g;
        failed |= !ready;
        if (ready) {
            memset(packed_g, 0, rows * COLUMNS * sizeof *packed_g);
            pack_weights(packed_w, K, M, w, 1, K);
        }
#pragma omp for schedule(static)
        for (long part = 0; part < parts; part++)
            for (long block = part * blocks / parts; ready && block < (part + 1) * blocks / parts; block++) {
                long n = block * COLUMNS, columns = min(COLUMNS, N - n);
                long steps = rows / ROWS * (rounded(row, 2 * LANES) / (2 * LANES)) * COLUMNS;
                /* With gy, those of g are fetched while it is computed. */
                lines of_y = lines_beyond(y, K, N, n, steps), of_g = lines_beyond(g, M, gy ? 0 : N, n, steps);
                if (gy)
                    multiply(K, M, N, packed_w, g, gy, n, packed_g);
                else
                    pack_columns(packed_g, M, N, g + n, columns);
                pack_transposed(packed_y, row, K, N, y + n, columns);
                for (long m = 0; m < M; m += ROWS)
                    for (long k = 0; k < row; k += 2 * LANES) {
                        real *s = sums + (part * rows + m) * row + k;
                        if (k + LANES < row)
                            add_products(2, s, packed_g + m * COLUMNS, packed_y + k, row, &of_y, &of_g);
                        else
                            add_products(1, s, packed_g + m * COLUMNS, packed_y + k, row, &of_y, &of_g);
                    }
            }
    }
    for (long part = 1; part < parts && !failed; part++)
        for (long i = 0; i < rows * row; i++) sums[i] += sums[part * rows * row + i];
    for (long m = 0; m < M && !failed; m++) memcpy(dw + m * K, sums + m * row, K * sizeof *dw);
    free(sums);
    return failed;
}
