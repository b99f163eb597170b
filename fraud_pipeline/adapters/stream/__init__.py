"""The scorer of a stream: what it reads, when it may decide, what it writes, and how it comes back. Knows no broker."""
