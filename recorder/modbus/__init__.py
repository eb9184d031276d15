"""Modbus RTU: frames, and exchanges on a tapped bus, without I/O."""
