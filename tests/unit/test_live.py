"""The labels and MD runs under way, from files that real jobs leave half-way."""

import io
import shutil
from pathlib import Path

import pytest
from rich.console import Console

from example_structures import make_structures
from mlip_auto.config_dft import Dft
from mlip_auto.labelling import label_structures
from mlip_auto.lammps_output import read_thermo
from mlip_auto.ledger import Ledger
from mlip_auto.live import Labelling, RunningMd, describe_live, read_labelling, read_running_md, show_live
from mlip_auto.paths import CampaignPaths, GenerationPaths, WalkerPaths
from mlip_auto.structures import write_json, write_structures

NATIVE_PACE = Path(__file__).parents[1] / "data" / "native_pace"


@pytest.fixture
def paths(tmp_path) -> CampaignPaths:
    return CampaignPaths(tmp_path)


@pytest.fixture
def files(paths) -> GenerationPaths:
    return paths.generation(0)


def test_labels_are_counted_while_their_shards_are_at_work(paths, files, tmp_path):
    assert read_labelling(files) is None
    structures = make_structures(5)
    write_structures(files.selected, structures)
    assert read_labelling(files) == Labelling(0, 5)
    dft = Dft(code="emt", store=tmp_path / "store")
    label_structures(structures[:2], dft, ledger=Ledger(files.ledger("0000"), None))  # its record is not written yet
    assert read_labelling(files) == Labelling(2, 5)
    write_json(files.shard_record("0000"), label_structures(structures[:3], dft).content)
    assert read_labelling(files) == Labelling(3, 5)  # the record has the place of the ledger, and all that it holds
    assert describe_live(read_labelling(files), []) == ["labels: 3 of 5"]
    files.labels.touch()
    assert read_labelling(files) is None


def copy_half_a_run(paths: CampaignPaths, walker: str) -> WalkerPaths:
    """In the scratch folder, where MD works."""
    run = WalkerPaths(paths.work(0, f"md/{walker}"))
    run.directory.mkdir(parents=True)
    shutil.copy(NATIVE_PACE / "in.lammps", run.input)
    log = (NATIVE_PACE / "log.lammps").read_text()
    run.log.write_text(log[: int(0.6 * len(log))])  # the last line torn, as a running LAMMPS leaves it
    return run


def test_md_shows_its_last_step_and_gamma(paths, files):
    run = copy_half_a_run(paths, "md_300K")
    thermo = read_thermo(run.log)
    (md,) = read_running_md(paths, 0)
    assert md == RunningMd("md_300K", int(thermo.index[-1]), md.steps, float(thermo["v_gamma_max"].iloc[-1]))
    assert 0 < md.step < md.steps
    console = Console(file=io.StringIO(), width=100)
    console.print(show_live(paths, 0))
    assert f"{md.step}/{md.steps} steps" in console.file.getvalue() and f"γ {md.gamma:.2f}" in console.file.getvalue()
    files.walker("md_300K").directory.mkdir(parents=True)
    files.walker("md_300K").outcome.touch()
    assert read_running_md(paths, 0) == []


def test_a_run_that_has_written_nothing_yet_is_not_shown(paths):
    copy_half_a_run(paths, "md_300K").log.write_text("LAMMPS (22 Jul 2025)\n")
    assert read_running_md(paths, 0) == []
