# The operator. Dependencies lie in a layer of their own below the code: a change of code moves kilobytes.
# It runs as any user with a read-only root; nothing in it needs to be written.
ARG BASE_IMAGE=docker.io/library/python:3.12-slim
FROM ${BASE_IMAGE}

ENV PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/app \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1

COPY locks/operator.txt /opt/locks/operator.txt
RUN python3 -m venv /opt/venv \
 && python3 -m pip install --no-cache-dir --disable-pip-version-check --only-binary=:all: --require-hashes \
      -r /opt/locks/operator.txt \
 && python3 -m pip uninstall --quiet --yes pip setuptools

COPY operator/finetune_api /app/finetune_api
COPY operator/finetune_operator /app/finetune_operator
RUN python3 -m compileall -q /app

USER 65532:65532
ENTRYPOINT ["python3", "-m", "finetune_operator"]
