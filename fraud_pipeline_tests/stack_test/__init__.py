"""docker-compose.yml proven on a real Docker engine: `make stack-test`, a command of its own and no part of `make test`."""
