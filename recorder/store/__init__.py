"""The recorder's own history: what was recorded, thinned, on disk, without any database server."""
