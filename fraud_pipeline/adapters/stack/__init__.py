"""The topology of docker-compose.yml without Docker: the same processes with the same settings on loopback."""
