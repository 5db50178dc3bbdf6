/* /*= title =*/

   Made by ttcompress /*= version =*/ from a model with the SHA-256
   /*= sha =*/.
   C99 without heap, libm, or global variables that change. README.md shows a main loop.         */

#ifndef MODEL_H
#define MODEL_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/*= sizes =*/

/* Everything that changes, in memory of yours: static, on the stack, or wherever you like. */
typedef struct
#ifdef __GNUC__
    __attribute__((aligned(64)))
#endif
{
/*= state =*/
} model_state;

/* Start a new sequence. Call it once before anything else. */
void model_reset(model_state *state);

/*= calls =*/

/* The memory of a sequence as torch has it: of each stack the hidden states of all layers, then,
   in an LSTM, the cells. To start from a state, or to put a sequence aside. */
void model_save(const model_state *state, float memory[MODEL_MEMORY]);
void model_load(model_state *state, const float memory[MODEL_MEMORY]);

#ifdef __cplusplus
}
#endif

#endif
