"""`inv report`: one run in lines, as JSON, or as an HTML page."""
