"""The log file of one job: what it did, and the traceback when it failed."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlip_auto.processes import die_with_parent


@contextmanager
def run_job(log: Path | str) -> Iterator[logging.Logger]:
    """Log to the file (and to stderr) while the block runs. The job dies with the Snakemake that started it."""
    die_with_parent()
    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s %(message)s",
        handlers=[logging.FileHandler(log, mode="w"), logging.StreamHandler()],
        force=True,
    )
    logger = logging.getLogger("mlip_auto")
    try:
        yield logger
    except Exception:
        logger.exception("failed")
        raise
