ARG BASE=debian:bookworm-slim
FROM ${BASE}
LABEL mintmark.stand-in="apache/kafka"
COPY java /opt/java
COPY jars /opt/kafka/libs
COPY run-kafka /usr/local/bin/run-kafka
RUN chmod 755 /usr/local/bin/run-kafka /opt/java/bin/* && useradd --uid 1000 appuser \
 && install -d -o appuser /var/lib/kafka/data /opt/kafka/config
USER appuser
EXPOSE 9092
CMD ["run-kafka"]
