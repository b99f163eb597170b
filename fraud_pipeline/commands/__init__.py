"""The `fraud` commands, one module per area: thin, and every import that costs time stands inside a function body."""
