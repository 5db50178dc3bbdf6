/* One step: /*= input =*/ in, MODEL_OUTPUTS values out/*= pooled =*/. */
void model_step(model_state *state, /*= argument =*/, float y[MODEL_OUTPUTS]);

/* Several steps: x is [steps]/*= input_size =*/, y is /*= output_size =*/. */
void model_run(model_state *state, int steps, const MODEL_INPUT *x, float *y);

/* The same for `count` sequences side by side, each with a state of its own in an array: x is
   [count]/*= input_size =*/ for one step and [steps][count]/*= input_size =*/ for several, y likewise.
   Compiled with -DMODEL_TOGETHER=4, four sequences share each weight that is loaded. */
void model_step_many(model_state *states, int count, const MODEL_INPUT *x, float *y);
void model_run_many(model_state *states, int count, int steps, const MODEL_INPUT *x, float *y);
