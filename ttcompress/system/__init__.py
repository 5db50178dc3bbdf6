"""What has nothing to do with models: files, memory, JSON, progress, timing."""
