"""Points: what samples become, without I/O."""
