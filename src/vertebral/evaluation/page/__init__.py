"""The report of an evaluation to read: an HTML page that needs nothing else, Markdown, and a LaTeX table."""
