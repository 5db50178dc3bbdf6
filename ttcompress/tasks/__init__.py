"""Tasks: how good a model is, and how to train it.

what a task is               protocol
finding or making one        registry
a model measured on one      evaluation, metrics
the built-in ones            recurrent_task -> language_model, sequence_labels
those of the sample models   charlm, highlighter
what these read              architecture (of the model), vocabulary, data_files, label_files
"""
