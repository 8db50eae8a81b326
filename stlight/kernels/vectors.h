/* Numbers, vectors of them, and scratch memory. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef float real;
/* As wide as the processor's vector registers, and their number. */
#ifdef __AVX512F__
enum { VECTOR_BYTES = 64, REGISTERS = 32 };
#elif defined __AVX__
enum { VECTOR_BYTES = 32, REGISTERS = 16 };
#elif defined __aarch64__
enum { VECTOR_BYTES = 16, REGISTERS = 32 };
#else
enum { VECTOR_BYTES = 16, REGISTERS = 16 };
#endif
typedef real vector __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(real)), may_alias));
enum { LANES = VECTOR_BYTES / sizeof(real) };

/* Load a vector once for several products: volatile, because gcc would load it again in each. */
#define LOAD(address) (*(const volatile vector *)(address))
/* Inlined so that its constant arguments unroll the loops over registers. */
#define INLINE static inline __attribute__((always_inline))

static inline long min(long a, long b) { return a < b ? a : b; }
static inline long max(long a, long b) { return a > b ? a : b; }

/* Scratch memory of a thread, kept between calls, aligned so that few vectors lie in two cache lines. */
static _Thread_local real *scratch_memory;
static _Thread_local size_t scratch_size;

static real *scratch(size_t count) {
    if (count > scratch_size) {
        free(scratch_memory);
        scratch_memory = aligned_alloc(64, (count * sizeof(real) + 63) / 64 * 64);
        scratch_size = scratch_memory ? count : 0;
    }
    return scratch_memory;
}
