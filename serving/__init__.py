"""The scoring service: HTTP only."""
