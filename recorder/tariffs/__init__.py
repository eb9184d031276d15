"""What energy costs and earns: the tariff file, and what a day saved. Pure: no file is read here."""
