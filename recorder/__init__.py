"""Recorder for closed home-energy systems: from strace text of their Modbus traffic to InfluxDB."""
