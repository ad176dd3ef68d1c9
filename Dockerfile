# The live server in a container. On a CPU:  docker build -t simulsa:cpu .
# On an NVIDIA GPU:  docker build -t simulsa:cuda --build-arg TORCH_INDEX=https://pypi.org/simple .
# See docs/serving.md; compose.yaml builds and runs either.

ARG PYTHON_IMAGE=docker.io/library/python:3.11-slim-bookworm

# what simulsa needs, without simulsa: this large layer stays the same until pyproject.toml or constraints.txt changes
FROM ${PYTHON_IMAGE} AS packages
# where PyTorch comes from: its CPU builds are there, on PyPI are those for CUDA, which bring its libraries along
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG EXTRAS=serve
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PATH=/opt/simulsa/bin:$PATH
RUN python3 -m venv /opt/simulsa
WORKDIR /packages
COPY pyproject.toml constraints.txt ./
RUN pip install --constraint constraints.txt --index-url "$TORCH_INDEX" torch
RUN mkdir -p src/simulsa && touch README.md LICENSE src/simulsa/__init__.py && echo '__version__ = "0"' > src/simulsa/_version.py \
    && pip install --constraint constraints.txt ".[$EXTRAS]" \
    && pip uninstall --yes simulsa

FROM packages AS project
WORKDIR /project
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN pip install --no-deps --prefix=/installed .

FROM ${PYTHON_IMAGE}
RUN groupadd --gid 10001 simulsa && useradd --uid 10001 --gid 10001 --no-create-home --shell /usr/sbin/nologin simulsa \
    && install -d -o simulsa -g simulsa /models
COPY --from=packages /opt/simulsa /opt/simulsa
COPY --from=project /installed /opt/simulsa
# models from the Hugging Face Hub are kept in the volume; nothing else is written
ENV PATH=/opt/simulsa/bin:$PATH HF_HOME=/models PYTHONUNBUFFERED=1
VOLUME /models
USER 10001
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=120s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
# (no shell in between, so that SIGTERM reaches the server and every session gets its final text)
ENTRYPOINT ["simulsa"]
CMD ["serve", "--host", "0.0.0.0", "--api-key-file", "/run/secrets/api-key"]
