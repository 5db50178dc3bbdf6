"""What workflows return, as values without torch; `ttcompress.reporting` shows them."""
