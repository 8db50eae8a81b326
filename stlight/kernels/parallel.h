/* Loops that threads share, and vectors of the fewest channels. */
#include "vectors.h"

/* Treat denormal numbers as zero until the end of the block, because gradients of early time steps vanish, and arithmetic on
   denormal numbers is ten times slower. */
#ifdef __SSE__
#include <immintrin.h>
static void restore(unsigned *mode) { _mm_setcsr(*mode); }
#define FLUSH_DENORMALS                                                                                                        \
    __attribute__((cleanup(restore))) unsigned mode = _mm_getcsr();                                                            \
    _mm_setcsr(mode | 0x8040);
#else
#define FLUSH_DENORMALS
#endif
#define PARALLEL _Pragma("omp parallel num_threads(threads)")
#define SHARED _Pragma("omp for schedule(static)")

enum { CHANNELS = 8 };
typedef real lanes __attribute__((vector_size(CHANNELS * sizeof(real)), aligned(sizeof(real)), may_alias));
