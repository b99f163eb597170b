# Stand-in for python:X.Y-slim: Debian's own Python under the names of the official image.
ARG BASE
FROM ${BASE}
RUN for name in python python3; do ln -s "$(readlink -f /usr/bin/python3)" "/usr/local/bin/$name"; done
CMD ["python3"]
