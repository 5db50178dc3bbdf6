"""What workflows return: values without torch, shown by `ttcompress.reporting`."""
