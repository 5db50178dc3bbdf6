/* ---- Numbers: WIDE of them at a time ---------------------------------------------------------

   With GCC or Clang on a processor with vector instructions, `floats` and `ints` are GNU vectors
   of WIDE numbers. Everywhere else, or with -DMODEL_PLAIN, WIDE is 1 and they are plain numbers:
   the same code runs, as C99.                                                                  */

#if defined(__GNUC__) && !defined(MODEL_PLAIN)
#if defined(__AVX512F__) && defined(__AVX512BW__)
#include <immintrin.h>
#define WIDE 16
#elif defined(__AVX2__)
#include <immintrin.h>
#define WIDE 8
#elif defined(__SSE2__)
#include <immintrin.h>
#define WIDE 4
#elif defined(__ARM_NEON) && defined(__aarch64__)
#include <arm_neon.h>
#define WIDE 4
#endif
#endif

#ifdef __GNUC__
#define INLINE static inline __attribute__((always_inline))
#else
#define INLINE static inline
#endif

#ifdef WIDE
typedef float floats __attribute__((vector_size(4 * WIDE)));
typedef int32_t ints __attribute__((vector_size(4 * WIDE)));
typedef uint8_t bytes __attribute__((vector_size(4 * WIDE)));
typedef uint16_t pairs __attribute__((vector_size(4 * WIDE)));
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 32")
#endif
INLINE floats to_floats(ints x) { return __builtin_convertvector(x, floats); }
INLINE ints to_ints(floats x) { return __builtin_convertvector(x, ints); }
#else
#define WIDE 1
typedef float floats;
typedef int32_t ints;
typedef struct { uint8_t byte[4]; } bytes;
#define UNROLL
INLINE floats to_floats(ints x) { return (float)x; }
INLINE ints to_ints(floats x) { return (int32_t)x; }
#endif

INLINE floats load(const float *x) { floats v; memcpy(&v, x, sizeof v); return v; }
INLINE void store(float *x, floats v) { memcpy(x, &v, sizeof v); }
#if WIDE == 1
INLINE floats spread(float x) { return x; }
INLINE ints spread_int(int32_t x) { return x; }
#else
INLINE floats spread(float x) { return x - (floats){0}; }
INLINE ints spread_int(int32_t x) { return x - (ints){0}; }
#endif

/* `at_most(limit, x)` and `at_least(limit, x)` return x where it is not a number. */
#if WIDE == 16
INLINE floats at_most(floats limit, floats x) { return (floats)_mm512_min_ps((__m512)limit, (__m512)x); }
INLINE floats at_least(floats limit, floats x) { return (floats)_mm512_max_ps((__m512)limit, (__m512)x); }
#elif WIDE == 8
INLINE floats at_most(floats limit, floats x) { return (floats)_mm256_min_ps((__m256)limit, (__m256)x); }
INLINE floats at_least(floats limit, floats x) { return (floats)_mm256_max_ps((__m256)limit, (__m256)x); }
#elif WIDE == 4 && defined(__SSE2__)
INLINE floats at_most(floats limit, floats x) { return (floats)_mm_min_ps((__m128)limit, (__m128)x); }
INLINE floats at_least(floats limit, floats x) { return (floats)_mm_max_ps((__m128)limit, (__m128)x); }
#elif WIDE == 4
INLINE floats at_most(floats limit, floats x) { return (floats)vminq_f32((float32x4_t)limit, (float32x4_t)x); }
INLINE floats at_least(floats limit, floats x) { return (floats)vmaxq_f32((float32x4_t)limit, (float32x4_t)x); }
#else
INLINE floats at_most(floats limit, floats x) { return limit < x ? limit : x; }
INLINE floats at_least(floats limit, floats x) { return limit > x ? limit : x; }
#endif

/* ---- Weights ---------------------------------------------------------------------------------

   A matrix is cut into strips of `strip` rows; the last may be lower. In a strip, columns come one
   after another (float), or in fours (8 bits) or eights (4 bits), each with all rows of the strip:

       float    [column][row]
       8 bits   [column / 4][row][column % 4]       value = (byte - 64) * scale * column's scale
       4 bits   [column / 8][row][column % 4]       value = (2 nibble - 15) * scale * column's scale
                columns 0 to 3 of the eight in the low nibbles, 4 to 7 in the high ones

   Bytes stay below 128, so that they are the same number signed and unsigned, and sums of two
   products stay below 2^15: every instruction set takes them as they are, and none saturates.
   Columns are padded to a multiple of 8. A strip of gates has the same units of each gate, one gate
   after another: what a unit needs is ready at once. Arrays end in 64 bytes that may be read.  */

typedef struct {
    const void *weights;
    const float *scale;  /* of each row; NULL: 1 */
    const float *bias;   /* of each row; NULL: 0 */
    const float *column; /* of each column; NULL: 1 */
    int32_t rows, columns, strip, bits;
} matrix;

typedef struct {
    matrix down, up; /* up * down * x; without `down.weights`, up * x */
} map;

#define ROWS 64     /* most rows in a strip */
#define UNITS 16    /* units of a layer in a strip with several gates */
#define EIGHT(n) (((n) + 7) & ~7)
#define SIXTEEN(n) (((n) + 15) & ~15)

/* The same place in the state of the k-th stream: states are in an array. */
#define STREAM(place, k) ((place) + (size_t)(k) * (sizeof(model_state) / sizeof *(place)))

/* ---- Sums of products -------------------------------------------------------------------------

   Vectors of rows that are summed together: as many as registers allow. A weight that is loaded
   serves `streams` streams.                                                                    */

#if WIDE == 16
#define TOGETHER(streams) 4
#elif WIDE == 8
#define TOGETHER(streams) ((streams) == 1 ? 8 : 2)
#elif WIDE == 4
#define TOGETHER(streams) ((streams) == 1 ? 8 : 2)
#else
#define TOGETHER(streams) 4
#endif
#define MOST_SUMS 32

#if MODEL_FLOAT
typedef floats totals;

/* sums[stream][vector] = rows of a strip times a vector of each stream */
INLINE void sum_floats(const float *w, int height, int columns, const float *x, int vectors,
                       int streams, floats *sums)
{
    const int chains = streams == 1 && vectors * WIDE <= ROWS && WIDE == 16 ? 2 : 1;
    floats chain[MOST_SUMS];
    UNROLL for (int q = 0; q < chains * streams * vectors; q++) chain[q] = spread(0.0f);
    for (int k = 0; k < columns; k += chains) {
        UNROLL for (int c = 0; c < chains; c++) {
            UNROLL for (int v = 0; v < vectors; v++) {
                floats weight = load(w + (k + c) * height + v * WIDE);
                UNROLL for (int s = 0; s < streams; s++)
                    chain[(c * streams + s) * vectors + v] +=
                        weight * spread(STREAM(x, s)[k + c]);
            }
        }
    }
    UNROLL for (int q = 0; q < streams * vectors; q++)
        sums[q] = chains == 2 ? chain[q] + chain[streams * vectors + q] : chain[q];
}
#endif

#if MODEL_INTEGERS
typedef ints totals;

INLINE bytes load_bytes(const uint8_t *w) { bytes v; memcpy(&v, w, sizeof v); return v; }
INLINE int32_t load_four(const int8_t *x) { int32_t v; memcpy(&v, x, 4); return v; }

/* sum + w[0] x[0] + w[1] x[1] + w[2] x[2] + w[3] x[3] in each of WIDE rows */
#if WIDE == 16 && defined(__AVX512VNNI__)
INLINE ints dot(ints sum, bytes w, int32_t x)
{
    return (ints)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)w, _mm512_set1_epi32(x));
}
#elif WIDE == 16
INLINE ints dot(ints sum, bytes w, int32_t x)
{
    __m512i two = _mm512_maddubs_epi16((__m512i)w, _mm512_set1_epi32(x));
    return sum + (ints)_mm512_madd_epi16(two, _mm512_set1_epi16(1));
}
#elif WIDE == 8 && defined(__AVXVNNI__)
INLINE ints dot(ints sum, bytes w, int32_t x)
{
    return (ints)_mm256_dpbusd_avx_epi32((__m256i)sum, (__m256i)w, _mm256_set1_epi32(x));
}
#elif WIDE == 8
INLINE ints dot(ints sum, bytes w, int32_t x)
{
    __m256i two = _mm256_maddubs_epi16((__m256i)w, _mm256_set1_epi32(x));
    return sum + (ints)_mm256_madd_epi16(two, _mm256_set1_epi16(1));
}
#elif WIDE == 4 && defined(__SSSE3__)
INLINE ints dot(ints sum, bytes w, int32_t x)
{
    __m128i two = _mm_maddubs_epi16((__m128i)w, _mm_set1_epi32(x));
    return sum + (ints)_mm_madd_epi16(two, _mm_set1_epi16(1));
}
#elif WIDE == 4 && defined(__SSE2__)
INLINE ints dot(ints sum, bytes w, int32_t x)
{
    __m128i zero = _mm_setzero_si128(), four = _mm_set1_epi32(x);
    __m128i wide = _mm_srai_epi16(_mm_unpacklo_epi8(four, four), 8); /* with its sign */
    __m128i low = _mm_madd_epi16(_mm_unpacklo_epi8((__m128i)w, zero), wide);
    __m128i high = _mm_madd_epi16(_mm_unpackhi_epi8((__m128i)w, zero), wide);
    __m128 even = _mm_shuffle_ps((__m128)low, (__m128)high, 0x88);
    __m128 odd = _mm_shuffle_ps((__m128)low, (__m128)high, 0xdd);
    return sum + (ints)even + (ints)odd;
}
#elif WIDE == 4 && defined(__ARM_FEATURE_DOTPROD)
INLINE ints dot(ints sum, bytes w, int32_t x)
{
    return (ints)vdotq_s32((int32x4_t)sum, (int8x16_t)w, (int8x16_t)vdupq_n_s32(x));
}
#elif WIDE == 4
INLINE ints dot(ints sum, bytes w, int32_t x)
{
    int8x8_t four = (int8x8_t)vdup_n_s32(x);
    int32x4_t low = vpaddlq_s16(vmull_s8(vget_low_s8((int8x16_t)w), four));
    int32x4_t high = vpaddlq_s16(vmull_s8(vget_high_s8((int8x16_t)w), four));
    return sum + (ints)vpaddq_s32(low, high);
}
#else
INLINE ints dot(ints sum, bytes w, int32_t x)
{
    int8_t four[4];
    memcpy(four, &x, 4);
    return sum + w.byte[0] * four[0] + w.byte[1] * four[1] + w.byte[2] * four[2]
         + w.byte[3] * four[3];
}
#endif

INLINE void sum_bytes(const uint8_t *w, int height, int columns, const int8_t *x, int vectors,
                      int streams, ints *sums)
{
    const int chains = streams == 1 && WIDE == 16 ? 2 : 1;
    ints chain[MOST_SUMS];
    UNROLL for (int q = 0; q < chains * streams * vectors; q++) chain[q] = spread_int(0);
    for (int k = 0; k < columns; k += 4 * chains) {
        UNROLL for (int c = 0; c < chains; c++) {
            UNROLL for (int v = 0; v < vectors; v++) {
                bytes weight = load_bytes(w + (k + 4 * c) * height + 4 * WIDE * v);
                UNROLL for (int s = 0; s < streams; s++) {
                    ints *sum = &chain[(c * streams + s) * vectors + v];
                    *sum = dot(*sum, weight, load_four(STREAM(x, s) + k + 4 * c));
                }
            }
        }
    }
    UNROLL for (int q = 0; q < streams * vectors; q++)
        sums[q] = chains == 2 ? chain[q] + chain[streams * vectors + q] : chain[q];
}

#if MODEL_NIBBLES
#if WIDE == 1
INLINE bytes low(bytes w)
{
    for (int k = 0; k < 4; k++) w.byte[k] &= 15;
    return w;
}
INLINE bytes high(bytes w)
{
    for (int k = 0; k < 4; k++) w.byte[k] >>= 4;
    return w;
}
#else
INLINE bytes low(bytes w) { return w & 15; }
INLINE bytes high(bytes w) { return (bytes)((pairs)w >> 4) & 15; }
#endif

INLINE void sum_nibbles(const uint8_t *w, int height, int columns, const int8_t *x, int vectors,
                        int streams, ints *sums)
{
    UNROLL for (int q = 0; q < streams * vectors; q++) sums[q] = spread_int(0);
    for (int k = 0; k < columns; k += 8) {
        UNROLL for (int v = 0; v < vectors; v++) {
            bytes weight = load_bytes(w + k / 2 * height + 4 * WIDE * v);
            bytes first = low(weight), second = high(weight);
            UNROLL for (int s = 0; s < streams; s++) {
                ints *sum = &sums[s * vectors + v];
                *sum = dot(*sum, first, load_four(STREAM(x, s) + k));
                *sum = dot(*sum, second, load_four(STREAM(x, s) + k + 4));
            }
        }
    }
}
#endif

/* A vector in 8 bits, scaled to its largest value. What is not finite makes the scale so, and with
   it everything that is computed from the vector.                                              */
static void round_vector(const float *x, const float *column, int count, int8_t *code,
                         float *scale, int32_t *sum)
{
    floats most = spread(0.0f), spoilt = spread(0.0f);
    for (int k = 0; k < count; k += WIDE) {
        floats v = column ? load(x + k) * load(column + k) : load(x + k);
        spoilt += v * 0.0f;
        most = at_least(most, at_least(v, -v));
    }
    float largest = 0.0f, bad = 0.0f, each[WIDE];
    store(each, most);
    for (int k = 0; k < WIDE; k++) largest = each[k] > largest ? each[k] : largest;
    store(each, spoilt);
    for (int k = 0; k < WIDE; k++) bad += each[k];
    const float up = largest > 0.0f ? 127.0f / largest : 0.0f;
    ints total = spread_int(0);
    for (int k = 0; k < count; k += WIDE) {
        floats v = column ? load(x + k) * load(column + k) : load(x + k);
        v = v * spread(up) + 128.5f; /* above 0, where dropping the fraction rounds to nearest */
        v = at_most(at_least(v, spread(1.0f)), spread(255.0f)); /* and 1 where it is no number */
        ints q = to_ints(v) - 128;
        total += q;
#if WIDE == 16
        _mm_storeu_si128((__m128i *)(void *)(code + k), _mm512_cvtepi32_epi8((__m512i)q));
#else
        int32_t whole[WIDE];
        memcpy(whole, &q, sizeof q);
        for (int j = 0; j < WIDE; j++) code[k + j] = (int8_t)whole[j];
#endif
    }
    int32_t totals[WIDE];
    memcpy(totals, &total, sizeof total);
    *sum = 0;
    for (int k = 0; k < WIDE; k++) *sum += totals[k];
    *scale = largest / 127.0f + bad;
}
#endif

/* ---- Vectors that are multiplied ---------------------------------------------------------------

   Each state has room for two vectors at a time: the inputs' and the hidden state's (`side`).   */

enum { INPUT, HIDDEN };

/* Make x the vector that products with m read on this side, for each stream. */
static void ready(const matrix *m, model_state *s, int count, int side, const float *x)
{
    for (int k = 0; k < count; k++) {
#if MODEL_INTEGERS
        round_vector(STREAM(x, k), m->column, SIXTEEN(m->columns), s[k].code[side],
                     &s[k].scale[side], &s[k].sum[side]);
#else
        float *room = s[k].vector[side];
        memcpy(room, STREAM(x, k), sizeof(float) * (size_t)m->columns);
        for (int j = m->columns; j < EIGHT(m->columns); j++) room[j] = 0.0f;
#endif
    }
}

INLINE int vectors_of(int rows, int together)
{
    int quarter = together / 4 > 0 ? together / 4 : 1;
    int needed = (rows + WIDE - 1) / WIDE;
    return WIDE == 1 || needed > together ? together : (needed + quarter - 1) / quarter * quarter;
}

/* rows[stream][row] = scale * sums + bias of up to `vectors` vectors of rows, from `first` on */
INLINE void finish(const matrix *m, int first, int vectors, int streams, const model_state *s,
                   int side, const totals *sums, float *rows)
{
    UNROLL for (int k = 0; k < streams; k++) {
        UNROLL for (int v = 0; v < vectors; v++) {
            const int row = first + v * WIDE;
#if MODEL_INTEGERS
            ints sum = sums[k * vectors + v];
#if MODEL_NIBBLES
            if (m->bits == 4) sum = sum * 2 - 15 * s[k].sum[side];
            else
#endif
            sum = sum - 64 * s[k].sum[side];
            floats y = to_floats(sum) * spread(s[k].scale[side]);
            if (m->scale) y = y * load(m->scale + row);
#else
            (void)s; (void)side;
            floats y = sums[k * vectors + v];
#endif
            if (m->bias) y = y + load(m->bias + row);
            store(rows + k * ROWS + v * WIDE, y);
        }
    }
}

/* The same for `vectors` vectors of rows of a strip, which begin `inside` rows from its top. */
INLINE void multiply_rows(const matrix *m, int top, int height, int inside, int vectors,
                          int streams, const model_state *s, int side, float *rows)
{
    const int columns = EIGHT(m->columns);
    const size_t start = (size_t)top * (size_t)columns;
    totals sums[MOST_SUMS];
#if MODEL_FLOAT
    sum_floats((const float *)m->weights + start + inside, height, columns, s->vector[side],
               vectors, streams, sums);
#else
    const uint8_t *w = m->weights;
#if MODEL_NIBBLES
    if (m->bits == 4)
        sum_nibbles(w + start / 2 + 4 * inside, height, columns, s->code[side], vectors, streams,
                    sums);
    else
#endif
    sum_bytes(w + start + 4 * inside, height, columns, s->code[side], vectors, streams, sums);
#endif
    finish(m, top + inside, vectors, streams, s, side, sums, rows + inside);
}

/* A strip times the vectors of one side of `streams` streams. */
INLINE void multiply_strip(const matrix *m, int top, int height, int streams,
                           const model_state *s, int side, float *rows)
{
    const int together = TOGETHER(streams);
    for (int inside = 0; inside < height; inside += together * WIDE) {
        const int vectors = vectors_of(height - inside, together);
        if (vectors == together)
            multiply_rows(m, top, height, inside, together, streams, s, side, rows);
#if WIDE > 1
        else if (vectors * 4 == together)
            multiply_rows(m, top, height, inside, together / 4, streams, s, side, rows);
        else if (vectors * 2 == together)
            multiply_rows(m, top, height, inside, together / 2, streams, s, side, rows);
        else
            multiply_rows(m, top, height, inside, together * 3 / 4, streams, s, side, rows);
#endif
    }
}

/* y = m * x, where x is ready on this side; y is in the states, or an array of one output each */
INLINE void multiply_streams(const matrix *m, int top, int height, int streams,
                             const model_state *s, int side, float *y, size_t apart)
{
    float rows[MODEL_TOGETHER * ROWS + WIDE];
    multiply_strip(m, top, height, streams, s, side, rows);
    for (int k = 0; k < streams; k++)
        memcpy(y + (size_t)k * apart + top, rows + k * ROWS, sizeof(float) * (size_t)height);
}

static void multiply(const matrix *m, const model_state *s, int count, int side, float *y,
                     size_t apart)
{
    for (int top = 0; top < m->rows; top += m->strip) {
        const int height = m->rows - top < m->strip ? m->rows - top : m->strip;
        int k = 0;
#if MODEL_TOGETHER > 1
        for (; k + MODEL_TOGETHER <= count; k += MODEL_TOGETHER)
            multiply_streams(m, top, height, MODEL_TOGETHER, s + k, side,
                             y + (size_t)k * apart, apart);
#endif
        for (; k < count; k++)
            multiply_streams(m, top, height, 1, s + k, side, y + (size_t)k * apart, apart);
    }
}

#define STATE_FLOATS (sizeof(model_state) / sizeof(float))

/* Make what m->up multiplies ready: x itself, or m->down times it. */
static void descend(const map *m, model_state *s, int count, int side, const float *x)
{
#if MODEL_FACTORS
    if (m->down.weights) {
        ready(&m->down, s, count, side, x);
        multiply(&m->down, s, count, side, s->middle, STATE_FLOATS);
        for (int k = 0; k < count; k++) /* what rounding reads beyond the last row */
            for (int j = m->down.rows; j < SIXTEEN(m->down.rows); j++) s[k].middle[j] = 0.0f;
        x = s->middle;
    }
#endif
    ready(&m->up, s, count, side, x);
}

/* ---- Cells -------------------------------------------------------------------------------------

   tanh(x) = x P(x^2) / Q(x^2) for |x| up to a limit beyond which it is constant. Largest error
   TANH_ERROR, and half of it for sigmoid(x) = 1/2 + tanh(x / 2) / 2. Numerators and denominators
   are kept apart, so that a cell needs two divisions.                                          */

#if MODEL_FLOAT
#define TANH_ERROR 5e-7
#define TANH_LIMIT 8.0f
#define TANH_P(u) (((1.13102602e-5f * (u) + 2.93883154e-3f) * (u) + 0.129136451f) * (u) + 0.999999362f)
#define TANH_Q(u) ((((2.42385195e-7f * (u) + 2.37028983e-4f) * (u) + 2.37638434e-2f) * (u) + 0.462467438f) * (u) + 1.0f)
#else /* beside the rounding of activations, 4e-3, this is nothing */
#define TANH_ERROR 5e-5
#define TANH_LIMIT 5.0f
#define TANH_P(u) ((6.54943359e-4f * (u) + 0.101723104f) * (u) + 0.999810134f)
#define TANH_Q(u) ((1.26391731e-2f * (u) + 0.434504009f) * (u) + 1.0f)
#endif

typedef struct {
    floats over, under;
} ratio;

INLINE ratio tanh_of(floats x)
{
    x = at_least(spread(-TANH_LIMIT), at_most(spread(TANH_LIMIT), x));
    const floats u = x * x;
    const ratio r = {x * TANH_P(u), TANH_Q(u)};
    return r;
}

/* Twice the sigmoid: tanh(x / 2) + 1. */
INLINE ratio sigmoid_of(floats x)
{
    const ratio t = tanh_of(x * 0.5f), r = {t.over + t.under, t.under};
    return r;
}

#if MODEL_LSTM
/* c' = f c + i g and h = o tanh(c') */
INLINE void lstm_cell(const float *a, const float *b, int apart, float *c, float *h)
{
    const ratio i = sigmoid_of(load(a) + load(b));
    const ratio f = sigmoid_of(load(a + apart) + load(b + apart));
    const ratio g = tanh_of(load(a + 2 * apart) + load(b + 2 * apart));
    const ratio o = sigmoid_of(load(a + 3 * apart) + load(b + 3 * apart));
    const floats both = i.under * g.under;
    const floats next = 0.5f * (f.over * both * load(c) + i.over * g.over * f.under)
                      / (f.under * both);
    const ratio t = tanh_of(next);
    store(c, next);
    store(h, 0.5f * (o.over * t.over) / (o.under * t.under));
}
#endif

#if MODEL_GRU
/* n = tanh(n_x + r n_h) and h' = (1 - z) n + z h */
INLINE void gru_cell(const float *a, const float *b, int apart, float *h)
{
    const ratio r = sigmoid_of(load(a) + load(b));
    const ratio z = sigmoid_of(load(a + apart) + load(b + apart));
    const floats reset = 0.5f * r.over / r.under;
    const ratio n = tanh_of(load(a + 2 * apart) + reset * load(b + 2 * apart));
    const floats rest = z.under + z.under - z.over; /* of 2 z.under */
    store(h, 0.5f * (rest * n.over + z.over * load(h) * n.under) / (z.under * n.under));
}
#endif

#if MODEL_RNN_TANH
INLINE void rnn_tanh_cell(const float *a, const float *b, float *h)
{
    const ratio t = tanh_of(load(a) + load(b));
    store(h, t.over / t.under);
}
#endif

#if MODEL_RNN_RELU
INLINE void rnn_relu_cell(const float *a, const float *b, float *h)
{
    store(h, at_least(spread(0.0f), load(a) + load(b)));
}
#endif

/* ---- Layers ------------------------------------------------------------------------------------ */

enum { LSTM, GRU, RNN_TANH, RNN_RELU };

typedef struct {
    map input, recurrent, projection;
    int32_t kind, hidden;
    int32_t h, c;       /* where its state is in model_state: hidden[h...], cell[c...] */
    int32_t outputs;    /* how many values it puts into hidden[h...] */
    int32_t reverse;    /* whether it runs from the last step to the first */
} layer;

/* `n` units of one strip, in `streams` streams. `kind`, and mostly `n`, are constants here. `share`
   has the rows of the input, if they have been computed before; there is one stream then.      */
INLINE void step_units(const layer *l, model_state *s, int first, int n, int streams, int kind,
                       const float *share)
{
    const int gates = kind == LSTM ? 4 : kind == GRU ? 3 : 1;
    float a[MODEL_TOGETHER * ROWS + 16], b[MODEL_TOGETHER * ROWS + 16];
    if (!share) multiply_strip(&l->input.up, gates * first, gates * n, streams, s, INPUT, a);
    multiply_strip(&l->recurrent.up, gates * first, gates * n, streams, s, HIDDEN, b);
    for (int k = 0; k < streams; k++) {
        const float *x = share ? share + gates * first : a + k * ROWS, *y = b + k * ROWS;
#if MODEL_PROJECTION
        float *h = (l->projection.up.weights ? s[k].unprojected : s[k].hidden + l->h) + first;
#else
        float *h = s[k].hidden + l->h + first;
#endif
        for (int j = 0; j < n; j += WIDE) {
#if MODEL_LSTM
            if (kind == LSTM) lstm_cell(x + j, y + j, n, s[k].cell + l->c + first + j, h + j);
#endif
#if MODEL_GRU
            if (kind == GRU) gru_cell(x + j, y + j, n, h + j);
#endif
#if MODEL_RNN_TANH
            if (kind == RNN_TANH) rnn_tanh_cell(x + j, y + j, h + j);
#endif
#if MODEL_RNN_RELU
            if (kind == RNN_RELU) rnn_relu_cell(x + j, y + j, h + j);
#endif
        }
        for (int j = n; j < SIXTEEN(n); j++) h[j] = 0.0f; /* no units, but room for vectors */
    }
}

INLINE void step_strips(const layer *l, model_state *s, int count, int kind, const float *share)
{
    const int units = kind == LSTM || kind == GRU ? UNITS : ROWS;
    for (int first = 0; first < l->hidden; first += units) {
        const int n = l->hidden - first;
        int k = 0;
#if MODEL_TOGETHER > 1
        for (; k + MODEL_TOGETHER <= count; k += MODEL_TOGETHER) {
            if (n >= units)
                step_units(l, s + k, first, units, MODEL_TOGETHER, kind, 0);
            else
                step_units(l, s + k, first, n, MODEL_TOGETHER, kind, 0);
        }
#endif
        for (; k < count; k++) {
#if WIDE > 1
            if (n >= units)
                step_units(l, s + k, first, units, 1, kind, share);
            else
                step_units(l, s + k, first, n, 1, kind, share);
#else
            step_units(l, s + k, first, n < units ? n : units, 1, kind, share);
#endif
        }
    }
}

/* One step of one layer in every stream; x is the input, inside the states, unless `share` has the
   rows of l->input already. */
static void step_layer(const layer *l, model_state *s, int count, const float *x,
                       const float *share)
{
    if (!share) descend(&l->input, s, count, INPUT, x);
    descend(&l->recurrent, s, count, HIDDEN, s->hidden + l->h);
#if MODEL_LSTM
    if (l->kind == LSTM) step_strips(l, s, count, LSTM, share);
#endif
#if MODEL_GRU
    if (l->kind == GRU) step_strips(l, s, count, GRU, share);
#endif
#if MODEL_RNN_TANH
    if (l->kind == RNN_TANH) step_strips(l, s, count, RNN_TANH, share);
#endif
#if MODEL_RNN_RELU
    if (l->kind == RNN_RELU) step_strips(l, s, count, RNN_RELU, share);
#endif
#if MODEL_PROJECTION
    if (l->projection.up.weights) {
        descend(&l->projection, s, count, HIDDEN, s->unprojected);
        multiply(&l->projection.up, s, count, HIDDEN, s->hidden + l->h, STATE_FLOATS);
    }
#endif
}

#if MODEL_LOOKUP
/* One row of a matrix. */
static void look_up(const matrix *m, int32_t row, float *y)
{
    const int32_t top = row / m->strip * m->strip;
    const int32_t height = m->rows - top < m->strip ? m->rows - top : m->strip;
    const size_t start = (size_t)top * (size_t)EIGHT(m->columns);
    for (int32_t k = 0; k < m->columns; k++) {
#if MODEL_FLOAT
        y[k] = ((const float *)m->weights)[start + (size_t)(k * height + row - top)];
#else
        const uint8_t *w = m->weights;
        float level;
#if MODEL_NIBBLES
        if (m->bits == 4) {
            const int32_t place = (k / 8 * height + row - top) * 4 + k % 4;
            const uint8_t two = w[start / 2 + (size_t)place];
            level = (float)(2 * (k % 8 < 4 ? two & 15 : two >> 4) - 15);
        } else
#endif
        level = (float)(w[start + (size_t)((k / 4 * height + row - top) * 4 + k % 4)] - 64);
        y[k] = level * (m->scale ? m->scale[row] : 1.0f) * (m->column ? m->column[k] : 1.0f);
#endif
    }
}
#endif
