"""A model's structure enters a task; its metrics, batches and losses leave it.

what a task is               protocol, structure
models read from shapes      chain, recurrent_model
vocabularies and data        tables, sources, labelled
the built-in tasks           recurrent_task -> language_model, sequence_labels
the samples and their text   corpus -> charlm; highlighting -> highlighter
what is measured             metrics
the door                     finding
"""
