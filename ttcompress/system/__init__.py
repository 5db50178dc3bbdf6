"""Tools that know nothing of models: files, memory, JSON, progress, timing."""
