/* Depthwise convolution of one channel and its gradients, on padded rows. */
/* Geometry of a K×K kernel over H rows of n numbers. Its taps are `dilation` rows and `shift` numbers apart. Input rows have
   `pad` zeros at both ends. */
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

/* Keep V vectors of outputs in registers and add all taps that lie within the plane. */
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
            /* The last vector overlaps the one before, whose numbers come out the same. */
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

/* The transposed convolution is the correlation with the weights in reverse order. */
static void convolve_transposed(real *restrict out, const real *restrict in, const plane *p, const real *w) {
    real turned[MAX_KERNEL * MAX_KERNEL];
    for (int k = 0; k < p->K * p->K; k++) turned[k] = w[p->K * p->K - 1 - k];
    convolve(out, p->n, in, p, turned, 0);
}

/* Gradient of the weights from the gradient g of the output, rows of n numbers. The taps of a kernel row share each g. */
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
