/* Depthwise convolution of one channel and its gradients, on padded rows. */
enum { MAX_KERNEL = 11 };

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

/* Copy H rows of n numbers, which are in_row and out_row apart. */
static void copy_rows(real *restrict out, long out_row, const real *restrict in, long in_row, const plane *p) {
    for (long y = 0; y < p->H; y++) memcpy(out + y * out_row, in + y * in_row, p->n * sizeof *out);
}

/* Add the taps of V vectors of a row of inputs to the outputs of R rows: to the first with the kernel row at w, to each next row
   with the kernel row before, so that an input is loaded once for all. */
INLINE void add_taps(int V, int R, vector (*restrict sums)[8], const real *w, long K, const real *in, long columns, long shift) {
    for (long kx = 0; kx < columns; kx++, in += shift)
        for (int j = 0; j < V; j++) {
            vector x = LOAD(in + LANES * j);
            for (int i = 0; i < R; i++) sums[i][j] += w[kx - i * K] * x;
        }
}

/* V vectors of outputs in each of R rows, which are `step` numbers apart, are kept in registers through all taps. Of the K + R - 1
   input rows that they read, those from `first` to before `last` lie within the plane; K is at least R - 1. Sums start from `bias`,
   or from the numbers at `plus`, in rows that are plus_step apart, if there are any. */
INLINE void block(int V, int R, real *restrict out, long step, const real *restrict in, const real *w, long K, long first,
                  long last, long columns, long row_step, long shift, real bias, const real *plus, long plus_step) {
    vector sums[4][8];
    for (int i = 0; i < R; i++)
        for (int j = 0; j < V; j++) {
            sums[i][j] = (vector){0} + bias;
            if (plus) sums[i][j] = LOAD(plus + i * plus_step + LANES * j);
        }
    long r = first;
    /* The first and the last input rows are not read by all R rows of outputs, but by `count` from row `from` on. */
#define ROW(count, from) add_taps(V, count, sums + from, w + (r - from) * K, K, in, columns, shift), r++, in += row_step
    if (R > 1 && r == 0) ROW(1, 0);
    if (R > 2 && r == 1) ROW(2, 0);
    if (R > 3 && r == 2) ROW(3, 0);
    while (r < min(K, last)) ROW(R, 0);
    if (R > 1 && r < last) ROW(R - 1, 1);
    if (R > 2 && r < last) ROW(R - 2, 2);
    if (R > 3 && r < last) ROW(R - 3, 3);
    for (int i = 0; i < R; i++)
        for (int j = 0; j < V; j++) *(vector *)(out + i * step + LANES * j) = sums[i][j];
}

/* Compute the outputs of R rows from row y on, which are `dilation` rows apart. */
INLINE void convolve_rows(long y, int R, real *restrict out, long out_row, const real *restrict in, const plane *p, const real *w,
                          real bias, const real *plus, const real *ahead) {
    long K = p->K, centre = K / 2, n = p->n, row_step = p->dilation * p->row, step = p->dilation * out_row;
    /* Taps above the plane's first row and below its last are zero. */
    long first = max(0, centre - y / p->dilation), last = min(K + R - 1, centre + 1 + (p->H - 1 - y) / p->dilation);
    const real *top = in + (y + (first - centre) * p->dilation) * p->row;
    real *o = out + y * out_row;
    long l = 0;
#define BLOCKS(V)                                                                                                              \
    for (; V * R < REGISTERS && l + V * LANES <= n; l += V * LANES) {                                                          \
        long left = max(0, centre - (l + V * LANES - 1) / p->shift);                                                           \
        long right = min(K, centre + 1 + (n - 1 - l) / p->shift);                                                              \
        block(V, R, o + l, step, top + l + left * p->shift, w + left, K, first, last, right - left, row_step, p->shift, bias,  \
              plus ? plus + y * n + l : 0, p->dilation * n);                                                                   \
        for (long i = 0; ahead && i < V * LANES; i += 64 / sizeof(real))                                                       \
            for (int j = 0; j < R; j++) __builtin_prefetch(ahead + (y + j * p->dilation) * n + l + i, 0, 2);                   \
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
    for (; l < n; l++)
        for (int r = 0; r < R; r++) {
            real s = plus ? plus[(y + r * p->dilation) * n + l] : bias;
            for (long ky = max(0, first - r); ky < min(K, last - r); ky++)
                for (int kx = 0; kx < K; kx++) s += w[ky * K + kx] * top[(ky + r - first) * row_step + l + kx * p->shift];
            o[r * step + l] = s;
        }
}

/* Correlation of padded rows `in` (H, row) with weights w (K, K): out[y] is a row of n numbers, out_row apart, to which the bias
   is added, or `plus` (H, n) instead, if there is one. Meanwhile it loads a plane `ahead` (H, n), if there is one, into the second
   cache, because a channel's arrays come from memory and nothing else would happen in that time. */
static void convolve(real *restrict out, long out_row, const real *restrict in, const plane *p, const real *w, real bias,
                     const real *plus, const real *ahead) {
    for (long phase = 0; phase < min(p->dilation, p->H); phase++) {
        long y = phase, d = p->dilation;
#define ROWS(R)                                                                                                                \
    for (; y + (R - 1) * d < p->H; y += R * d) convolve_rows(y, R, out, out_row, in, p, w, bias, plus, ahead);
        /* `block` takes at most two rows for a kernel of one. */
        if (p->K > 1) {
            ROWS(4)
        }
        ROWS(2)
        ROWS(1)
    }
}

/* The transposed convolution: the correlation of padded rows `in` (H, row) with the weights w (K, K) in reverse order, added to
   `plus` if there is one. */
static void convolve_transposed(real *restrict out, long out_row, const real *restrict in, const plane *p, const real *w,
                                const real *plus, const real *ahead) {
    real turned[MAX_KERNEL * MAX_KERNEL];
    for (int k = 0; k < p->K * p->K; k++) turned[k] = w[p->K * p->K - 1 - k];
    convolve(out, out_row, in, p, turned, 0, plus, ahead);
}

/* Add the products of `rows` rows of inputs with those of output gradients g, and with the T - 1 rows of g before each, to the sums
   of T kernel rows, so that an input is loaded once for all. With each row, load the next `share` numbers of two arrays, from number
   `at` to before `end`; return how far it came. */
INLINE long add_products(int K, int T, vector (*sums)[K], const real *g, const real *in, long g_step, long in_step, long rows,
                         long n, long shift, const real *const *ahead, long at, long end, long share) {
    vector s[3][MAX_KERNEL], v[3];
    for (int t = 0; t < T; t++)
        for (int kx = 0; kx < K; kx++) s[t][kx] = sums[t][kx];
    for (; rows > 0; rows--, g += g_step, in += in_step) {
        for (long i = 0; i < share && at < end; i += 64 / sizeof(real), at += 64 / sizeof(real))
            for (int j = 0; j < 2; j++)
                if (ahead[j]) __builtin_prefetch(ahead[j] + at, 0, 2);
        long l = 0;
        for (; l + LANES <= n; l += LANES) {
            for (int t = 0; t < T; t++) v[t] = LOAD(g - t * g_step + l);
            for (int kx = 0; kx < K; kx++) {
                vector x = LOAD(in + l + kx * shift);
                for (int t = 0; t < T; t++) s[t][kx] += v[t] * x;
            }
        }
        for (; l < n; l++)
            for (int t = 0; t < T; t++)
                for (int kx = 0; kx < K; kx++) s[t][kx][0] += g[l - t * g_step] * in[l + kx * shift];
    }
    for (int t = 0; t < T; t++)
        for (int kx = 0; kx < K; kx++) sums[t][kx] = s[t][kx];
    return at;
}

/* Gradient of the weights (K, K) from that of the output, g, H rows of n numbers, which are g_row apart. Input row i meets row
   i - up - t of g in kernel row ky + t; T kernel rows are computed at once from the rows that all of them meet. A few rows at a
   time serve all kernel rows, so that they stay in the nearest cache. Meanwhile it loads two planes `ahead` (H, n), as `convolve`
   does. */
#define WEIGHTS(K)                                                                                                             \
    static void weights_##K(real *restrict dw, const real *restrict g, long g_row, const real *restrict in, const plane *p,    \
                            const real *const *ahead) {                                                                        \
        /* Sums, a vector of each row of g, and one of inputs take registers. 5 = 2 + 2 + 1 rows are faster than 3 + 1 + 1. */ \
        enum { T = 3 * K + 4 <= REGISTERS && K != 5 ? 3 : 2 * K + 3 <= REGISTERS ? 2 : 1 };                                    \
        vector sums[K][K] = {{{0}}};                                                                                           \
        long at = 0, d = p->dilation, g_step = d * g_row, in_step = d * p->row, at_once = max(1, 4096 / p->n);                 \
        for (long phase = 0; phase < min(d, p->H); phase++)                                                                    \
            for (long H = (p->H - 1 - phase) / d + 1, from = 0; from < H; from += at_once)                                     \
                for (long ky = 0, count; ky < K; ky += count) {                                                                \
                    count = ky + T <= K ? T : 1;                                                                               \
                    long up = ky - K / 2, to = min(H, from + at_once);                                                         \
                    long first = max(from, up + count - 1), end = max(first, min(to, H + up));                                 \
                    const real *row = in + phase * p->row, *q = g + phase * g_row - up * g_step;                               \
                    for (long t = 0; t < count - 1; t++) ADD(K, 1, t, max(from, up + t), min(first, min(to, H + up + t)))      \
                    if (count == T)                                                                                            \
                        ADD(K, T, 0, first, end)                                                                               \
                    else                                                                                                       \
                        ADD(K, 1, 0, first, end)                                                                               \
                    for (long t = 1; t < count; t++) ADD(K, 1, t, end, min(to, H + up + t))                                    \
                }                                                                                                              \
        for (int k = 0; k < K * K; k++) {                                                                                      \
            real s = 0;                                                                                                        \
            for (int j = 0; j < LANES; j++) s += sums[k / K][k % K][j];                                                        \
            dw[k] = s;                                                                                                         \
        }                                                                                                                      \
    }
#define ADD(K, T, t, FROM, TO)                                                                                                 \
    at = add_products(K, T, sums + ky + t, q + ((FROM) - t) * g_step, row + (FROM) * in_step, g_step, in_step, (TO) - (FROM),  \
                      p->n, p->shift, ahead, at, p->H * p->n, p->n * T / K);
WEIGHTS(1) WEIGHTS(3) WEIGHTS(5) WEIGHTS(7) WEIGHTS(9) WEIGHTS(11)

typedef void weights_function(real *, const real *, long, const real *, const plane *, const real *const *);
static weights_function *const weights_backward[] = {weights_1, weights_3, weights_5, weights_7, weights_9, weights_11};
