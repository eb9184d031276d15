"""What the recorder answers over HTTP."""
