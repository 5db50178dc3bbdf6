/* /*= title =*/: the code. Made by ttcompress /*= version =*/; the weights are in model_weights.c. */

#include "model.h"

#include <math.h> /* for NAN alone: nothing of libm is called */
#include <string.h>

/* Sequences that share a loaded weight in model_run_many: 4 for speed, 1 for small code. */
#ifndef MODEL_TOGETHER
#define MODEL_TOGETHER 1
#endif

/*= settings =*/

/*= kernel =*/

/* ---- This model -------------------------------------------------------------------------------- */

/*= tables =*/

/* The header says how large a state is. */
typedef char model_state_size[sizeof(model_state) == MODEL_RAM_BYTES ? 1 : -1];

void model_reset(model_state *s) { memset(s, 0, sizeof *s); }

/* Copy one step's inputs into the states. */
static void enter(model_state *s, int count, const MODEL_INPUT *x)
{
    for (int k = 0; k < count; k++) {
#if MODEL_LOOKUP
        if (x[k] >= 0 && x[k] < MODEL_SYMBOLS)
            look_up(&TABLE, x[k], s[k].input);
        else /* no such symbol: the outputs are no numbers either, until the next reset */
            for (int j = 0; j < TABLE.columns; j++) s[k].input[j] = NAN;
#elif defined(MODEL_SYMBOLS)
        memset(s[k].input, 0, sizeof s[k].input);
        if (x[k] >= 0 && x[k] < MODEL_SYMBOLS)
            s[k].input[x[k]] = 1.0f;
        else
            s[k].input[0] = NAN;
#else
        memcpy(s[k].input, x + (size_t)k * MODEL_INPUTS, sizeof(float) * MODEL_INPUTS);
#endif
    }
}

/* The outputs of what the last layer gave, `features` in the states. */
static void leave(model_state *s, int count, const float *features, float *y)
{
#if MODEL_HEAD
    descend(&HEAD, s, count, INPUT, features);
    multiply(&HEAD.up, s, count, INPUT, y, MODEL_OUTPUTS);
#else
    for (int k = 0; k < count; k++)
        memcpy(y + (size_t)k * MODEL_OUTPUTS, STREAM(features, k), sizeof(float) * MODEL_OUTPUTS);
    (void)s;
#endif
}

#if MODEL_POOL_MEAN || MODEL_POOL_MAX
/* Take features into the pool, and put what it gives so far into s->pooled. */
static void pool(model_state *s, int count, const float *features)
{
    for (int k = 0; k < count; k++) {
        const float *x = STREAM(features, k);
        s[k].steps[0] += 1.0f;
        for (int j = 0; j < MODEL_FEATURES; j++) {
#if MODEL_POOL_MEAN
            s[k].pool[j] += x[j];
            s[k].pooled[j] = s[k].pool[j] / s[k].steps[0];
#else
            if (s[k].steps[0] == 1.0f || !(x[j] <= s[k].pool[j])) s[k].pool[j] = x[j];
            s[k].pooled[j] = s[k].pool[j];
#endif
        }
    }
}
#endif

#if !MODEL_BIDIRECTIONAL
/* One step of all layers; returns where the last one's outputs are. */
static const float *step_layers(model_state *s, int count, const MODEL_INPUT *x)
{
    const float *values = s->input;
    enter(s, count, x);
    for (int k = 0; k < MODEL_LAYERS; k++) {
        step_layer(&LAYERS[k], s, count, values, 0);
        values = s->hidden + LAYERS[k].h;
    }
#if MODEL_POOL_MEAN || MODEL_POOL_MAX
    pool(s, count, values);
    values = s->pooled;
#endif
    return values;
}

#if MODEL_TOGETHER > 1
/* Whether input weights are so many that loading them takes longer than multiplying. */
static int is_large(void)
{
    int32_t most = 0;
    for (int k = 0; k < MODEL_LAYERS; k++) {
        const matrix *m = &LAYERS[k].input.up;
        const int32_t size = m->rows * EIGHT(m->columns) / 8 * m->bits;
        most = size > most ? size : most;
    }
    return most > 1 << 16;
}

/* Some steps of one sequence: what follows from inputs alone is computed for several at once, which
   then share each weight that is loaded. `ahead` are states of as many steps, all zero at first. */
static void run_ahead(model_state *s, model_state *ahead, int steps, const MODEL_INPUT *x,
                      float *y)
{
    float shares[MODEL_TOGETHER * MODEL_ROWS];
    const float *values = ahead->input;
    enter(ahead, steps, x);
    for (int k = 0; k < MODEL_LAYERS; k++) {
        const layer *l = &LAYERS[k];
        descend(&l->input, ahead, steps, INPUT, values);
        multiply(&l->input.up, ahead, steps, INPUT, shares, MODEL_ROWS);
        for (int t = 0; t < steps; t++) {
            step_layer(l, s, 1, 0, shares + t * MODEL_ROWS);
            memcpy(ahead[t].hidden + l->h, s->hidden + l->h, sizeof(float) * (size_t)l->outputs);
        }
        values = ahead->hidden + l->h;
    }
#if MODEL_POOL_MEAN || MODEL_POOL_MAX
    for (int t = 0; t < steps; t++) pool(s, 1, STREAM(values, t));
    leave(s, 1, s->pooled, y);
#elif defined(MODEL_POOLED)
    leave(ahead, 1, STREAM(values, steps - 1), y);
#else
    leave(ahead, steps, values, y);
#endif
}
#endif

void model_step_many(model_state *s, int count, const MODEL_INPUT *x, float *y)
{
    leave(s, count, step_layers(s, count, x), y);
}

void model_run_many(model_state *s, int count, int steps, const MODEL_INPUT *x, float *y)
{
#if MODEL_TOGETHER > 1
    if (count == 1 && steps >= 2 * MODEL_TOGETHER && is_large()) {
        model_state ahead[MODEL_TOGETHER];
        memset(ahead, 0, sizeof ahead);
        for (int t = 0; t < steps; t += MODEL_TOGETHER) {
            const int n = steps - t < MODEL_TOGETHER ? steps - t : MODEL_TOGETHER;
            run_ahead(s, ahead, n, x, y);
            x += (size_t)n * MODEL_INPUTS;
#ifndef MODEL_POOLED
            y += (size_t)n * MODEL_OUTPUTS;
#endif
        }
        return;
    }
#endif
    for (int t = 0; t < steps; t++) {
        const float *values = step_layers(s, count, x);
        x += (size_t)count * MODEL_INPUTS;
#ifdef MODEL_POOLED
        if (t == steps - 1) leave(s, count, values, y);
#else
        leave(s, count, values, y);
        y += (size_t)count * MODEL_OUTPUTS;
#endif
    }
}

void model_step(model_state *s, /*= argument =*/, float y[MODEL_OUTPUTS])
{
    model_step_many(s, 1, /*= address =*/, y);
}

void model_run(model_state *s, int steps, const MODEL_INPUT *x, float *y)
{
    model_run_many(s, 1, steps, x, y);
}
#else
/* One layer over all steps, in its direction; from and to are [steps][count][MODEL_WIDEST]. */
static void run_layer(const layer *l, model_state *s, int count, int steps, const MODEL_INPUT *x,
                      const float *from, float *to)
{
    const size_t width = (size_t)count * MODEL_WIDEST;
    for (int step = 0; step < steps; step++) {
        const size_t t = (size_t)(l->reverse ? steps - 1 - step : step);
        if (from)
            for (int k = 0; k < count; k++)
                memcpy(s[k].input, from + t * width + (size_t)k * MODEL_WIDEST,
                       sizeof(float) * MODEL_WIDEST);
        else
            enter(s, count, x + t * (size_t)count * MODEL_INPUTS);
        step_layer(l, s, count, s->input, 0);
        for (int k = 0; k < count; k++)
            memcpy(to + t * width + (size_t)k * MODEL_WIDEST, s[k].hidden + l->h,
                   sizeof(float) * (size_t)l->outputs);
    }
}

void model_run_many(model_state *s, int count, int steps, const MODEL_INPUT *x, float *y,
                    float *work)
{
    const size_t width = (size_t)count * MODEL_WIDEST, size = (size_t)steps * width;
    float *from = 0, *to = work, *next = work + size;
    for (int k = 0; k < MODEL_LAYERS;) {
        run_layer(&LAYERS[k], s, count, steps, x, from, to);
        const int32_t beside = LAYERS[k++].outputs;
        for (size_t j = 0; j < (size_t)(steps * count); j++) /* what was there before */
            memset(to + j * MODEL_WIDEST + beside, 0,
                   sizeof(float) * (size_t)(MODEL_WIDEST - beside));
        if (k < MODEL_LAYERS && LAYERS[k].reverse) {
            run_layer(&LAYERS[k], s, count, steps, x, from, to + beside);
            k++;
        }
        from = to, to = next, next = from;
    }
    for (int t = 0; t < steps; t++) {
        for (int k = 0; k < count; k++) {
            const float *row = from + (size_t)t * width + (size_t)k * MODEL_WIDEST;
            memcpy(s[k].input, row, sizeof(float) * MODEL_WIDEST);
#if MODEL_POOL_LAST /* a reverse direction ends at the first step */
            const size_t half = MODEL_FEATURES / (LAYERS[MODEL_LAYERS - 1].reverse ? 2 : 1);
            memcpy(s[k].input + half, from + (size_t)k * MODEL_WIDEST + half,
                   sizeof(float) * (MODEL_FEATURES - half));
#endif
        }
        const float *values = s->input;
#if MODEL_POOL_MEAN || MODEL_POOL_MAX
        pool(s, count, values);
        values = s->pooled;
#endif
#ifdef MODEL_POOLED
        if (t == steps - 1) leave(s, count, values, y);
#else
        leave(s, count, values, y);
        y += (size_t)count * MODEL_OUTPUTS;
#endif
    }
}

void model_run(model_state *s, int steps, const MODEL_INPUT *x, float *y, float *work)
{
    model_run_many(s, 1, steps, x, y, work);
}
#endif

void model_save(const model_state *s, float memory[MODEL_MEMORY])
{
    for (size_t k = 0; k < sizeof MEMORY / sizeof MEMORY[0]; k++) {
        const float *from = (MEMORY[k].is_cell ? CELL(s) : s->hidden) + MEMORY[k].place;
        memcpy(memory, from, sizeof(float) * (size_t)MEMORY[k].count);
        memory += MEMORY[k].count;
    }
}

void model_load(model_state *s, const float memory[MODEL_MEMORY])
{
    model_reset(s);
    for (size_t k = 0; k < sizeof MEMORY / sizeof MEMORY[0]; k++) {
        float *to = (MEMORY[k].is_cell ? CELL(s) : s->hidden) + MEMORY[k].place;
        memcpy(to, memory, sizeof(float) * (size_t)MEMORY[k].count);
        memory += MEMORY[k].count;
    }
}
