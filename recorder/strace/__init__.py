"""strace text to transfers of bytes, without I/O."""
