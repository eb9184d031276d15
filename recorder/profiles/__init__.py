"""Device profiles: what registers mean, and the values that an answer holds."""
