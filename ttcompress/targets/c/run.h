/* A whole sequence, since a direction runs backwards: x is [steps]/*= input_size =*/, y is
   /*= output_size =*/, and `work` is room for steps * MODEL_WORK floats. */
void model_run(model_state *state, int steps, const MODEL_INPUT *x, float *y, float *work);

/* The same for `count` sequences side by side, each with a state of its own in an array: x is
   [steps][count]/*= input_size =*/, y likewise, and `work` has count times as much room. */
void model_run_many(model_state *states, int count, int steps, const MODEL_INPUT *x, float *y,
                    float *work);
