"""Tasks: each measures how good a model is and knows how to train it.

what a task is                protocol
a user's own task             own
find or build a task          registry
measure a model on a task     evaluation, metrics
built-in tasks                recurrent_task -> language_model, sequence_labels, forecast
tasks of the sample models    charlm, highlighter, forecaster
read the model and the data   architecture, vocabulary, data_files, label_files,
                              column_files
"""
