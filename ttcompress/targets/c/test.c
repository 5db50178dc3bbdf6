/* Compares model.c with outputs of torch: exits with 0 if they agree. Made by ttcompress. */

#include "model.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/*= data =*/

static model_state state;
static float y[OUTPUT_ROWS * MODEL_OUTPUTS];
/*= work =*/

int main(void)
{
    double gap = 0.0, size = 0.0, largest = 0.0, scale = 1.0;
    model_reset(&state);
    /*= call =*/
    for (int k = 0; k < OUTPUT_ROWS * MODEL_OUTPUTS; k++) {
        const double wanted = TORCH[k], off = fabs(y[k] - wanted);
        if (!(off <= largest)) largest = off; /* also where it is no number */
        if (fabs(wanted) > scale) scale = fabs(wanted);
        gap += off * off;
        size += wanted * wanted;
    }
    const double norm = size > 0.0 ? sqrt(gap / size) : sqrt(gap);
    printf("largest difference from torch: %.2g of values up to %.2g; relative norm: %.2g\n",
           largest, scale, norm);
    const int ok = /*= judgement =*/;
/*= twice =*/
    printf(ok ? "passed: %d bytes of weights, %d bytes of state\n"
              : "FAILED: %d bytes of weights, %d bytes of state\n",
           MODEL_FLASH_BYTES, MODEL_RAM_BYTES);
    return ok ? 0 : 1;
}
