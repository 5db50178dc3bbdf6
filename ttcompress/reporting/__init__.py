"""Shows results: terminal tables, Markdown, HTML pages and pictures. Computes nothing."""
