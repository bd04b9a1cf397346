# The environment of requirements.lock, and the pipeline in it:
#   docker build -t slpd .
#   docker run --rm --gpus all --user "$(id -u):$(id -g)" -v "$PWD:/work" slpd --cores all --resources gpu=1
# Slides, sheet, settings that overlay and results are in the folder that /work is.
FROM python:3.11-slim

ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1

COPY requirements.lock /slpd/
RUN pip install --require-hashes -r /slpd/requirements.lock

COPY . /slpd/
# --user need not be one that the image knows: it has a name all the same, and caches where anyone may write.
ENV USER=slpd HOME=/tmp XDG_CACHE_HOME=/tmp/cache MPLCONFIGDIR=/tmp/cache/matplotlib
RUN useradd --create-home --uid 1000 slpd && mkdir /work && chown slpd /work
USER slpd
WORKDIR /work

ENTRYPOINT ["snakemake", "--snakefile", "/slpd/Snakefile"]
CMD ["--help"]
