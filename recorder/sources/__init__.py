"""Where streams come from. Each source hands bytes to a `StreamHandler` and knows nothing of decoding."""
