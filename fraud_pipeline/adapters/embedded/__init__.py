"""The log of payments in one file, for a machine without a broker."""
