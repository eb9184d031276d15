"""InfluxDB: writing, set-up, continuous queries."""
