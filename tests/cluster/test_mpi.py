"""A labelling job whose pw.x runs on several MPI processes, with the lines that the shipped profile has for that."""

import re
import subprocess
import sys

import yaml

from campaign import ROOT
from mlip_auto.paths import CampaignPaths
from mlip_auto.structures import read_structures

PROCESSES = 2
STRUCTURES = 2
EXAMPLE = ROOT / "config" / "examples" / "al_espresso.yaml"
# Debian's Open MPI, as docs and profile say; a root's jobs are for tests.
MPIRUN = "env -u SLURM_JOB_ID -u SLURM_JOBID mpirun.openmpi --allow-run-as-root --oversubscribe -np {threads} pw.x"


def read_mpi_lines() -> dict[str, object]:
    """The resources that stand commented under label_structures."""
    text = (ROOT / "profiles" / "slurm" / "config.yaml").read_text()
    block = text.partition("  label_structures:")[2].partition("  fit_potential:")[0]
    return yaml.safe_load("\n".join(re.findall(r"^ +# (\w+: \w+)$", block, re.MULTILINE)))


def test_labels_by_pw_x_on_two_processes(pw_x, slurm, make_profile, tmp_path):
    resources = read_mpi_lines()
    assert set(resources) >= {"mpi", "tasks", "cpus_per_task"}
    content = yaml.safe_load(EXAMPLE.read_text())
    # Two cells of 4 atoms, and no more functions than they have environments.
    content["initial"]["structures"][0] |= {"supercell": [1, 1, 1], "count": STRUCTURES}
    content["selection"]["max_structures"] = STRUCTURES
    content["training"]["basis"]["number_of_functions_per_element"] = 6
    content["dft"] |= {"structures_per_shard": STRUCTURES, "kspacing": 0.8}
    content["dft"] |= {"threads": PROCESSES, "command": MPIRUN, "pseudo_folder": str(pw_x)}
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(content))
    paths = CampaignPaths(tmp_path / "campaign")
    target = paths.generation(0).labels

    command = [sys.executable, "-m", "snakemake", "--snakefile", ROOT / "Snakefile", "--configfile", config]
    command += ["--directory", paths.root, "--profile", make_profile(label_structures=resources)]
    done = subprocess.run([*command, target.relative_to(paths.root)], capture_output=True, text=True)

    assert done.returncode == 0, done.stdout + done.stderr
    assert len(read_structures(target)) == STRUCTURES
    (job,) = [job for job in slurm.list_jobs(paths.root) if job.rule == "label_structures"]
    shown = slurm.call("scontrol", "show", "job", str(job.id))
    assert f"NumCPUs={PROCESSES} NumTasks={PROCESSES} CPUs/Task=1" in shown
