# The production image: the programs and what they need at run time, locked by hash; none of the embedded parts.
#
#   docker build -t clip-orchestrator .
#   docker run --rm --env-file settings.env clip-orchestrator migrate
#   docker run -d --env-file settings.env -p 8080:8080 clip-orchestrator serve
#   docker run -d --env-file settings.env clip-orchestrator monitor
#   docker run -d --env-file settings.env clip-orchestrator worker

ARG PYTHON=3.13

FROM python:${PYTHON}-slim-bookworm AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
# Before the sources, so that a change of code does not install everything anew.
COPY requirements/runtime.txt requirements/build.txt requirements/
RUN python -m venv /opt/orchestrator \
    && /opt/orchestrator/bin/pip install --require-hashes -r requirements/runtime.txt \
    && python -m venv /opt/build \
    && /opt/build/bin/pip install --require-hashes -r requirements/build.txt
COPY pyproject.toml hatch_build.py README.md LICENSE ./
COPY migrations migrations
COPY statusutils statusutils
COPY signals signals
COPY orchestrator orchestrator
# Every Python package the wheel needs is there by now: --no-index makes sure that nothing unlocked slips in. The modules for
# browsers are fetched by npm, locked by hash as well.
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --no-index --wheel-dir /wheels . \
    && /opt/orchestrator/bin/pip install --no-deps --no-index /wheels/*.whl \
    && /opt/orchestrator/bin/python -m compileall -q /opt/orchestrator/lib \
    && /opt/orchestrator/bin/pip uninstall --yes pip

FROM python:${PYTHON}-slim-bookworm
# What the cut pipeline cuts with. A deployment without it can leave these two lines out.
RUN apt-get update && apt-get install --yes --no-install-recommends ffmpeg && rm -rf /var/lib/apt/lists/*
# By number, so that a cluster which forbids root can see that it is none.
RUN groupadd --system --gid 10001 orchestrator \
    && useradd --system --uid 10001 --gid 10001 --home-dir /nonexistent --no-create-home --shell /usr/sbin/nologin orchestrator
COPY --from=build /opt/orchestrator /opt/orchestrator
# HOST: inside a container loopback is reachable by nobody. `serve` then insists on API_TOKENS, and rightly so.
ENV PATH=/opt/orchestrator/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOST=0.0.0.0 PORT=8080 LOG_JSON=true
USER 10001:10001
WORKDIR /tmp
EXPOSE 8080
# Only the web process answers; a container that runs another command is as healthy as its process.
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s --retries=3 CMD ["python", "-c", "import os, pathlib, urllib.request; b'serve' in pathlib.Path('/proc/1/cmdline').read_bytes().split(b'\\0') and urllib.request.urlopen('http://127.0.0.1:' + os.environ['PORT'] + '/healthz', timeout=4)"]
ENTRYPOINT ["orchestrator"]
CMD ["serve"]
