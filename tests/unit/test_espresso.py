"""Input of pw.x from a config and a structure: by hand, and without running it."""

import io
import re

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.io.espresso import read_espresso_in
from ase.units import Bohr, Ry

from mlip_auto.config import ConfigError, parse_config
from mlip_auto.config_dft import Dft
from mlip_auto.espresso import count_electrons, find_espresso_errors, find_k_grid, make_espresso
from mlip_auto.espresso_output import find_pw_fault, read_pw_output
from mlip_auto.namelists import find_physics, flatten_parameters
from mlip_auto.oracles import compute_settings_hash
from mlip_auto.pseudopotentials import PseudopotentialError, find_pseudopotential_errors, read_pseudopotential
from mlip_auto.scf_failures import Reason, RefusedStructure, recognise

UPF_2 = '<UPF version="2.0.1">\n<PP_HEADER generated="by hand" element="{}" functional="{}" z_valence="{}"/>\n</UPF>\n'
UPF_1 = """<PP_HEADER>
   0                   Version Number
  {}                   Element
   NC                  Norm - Conserving pseudopotential
    F                  Nonlinear Core Correction
 {}   Exchange-Correlation functional
   {}      Z valence
</PP_HEADER>
"""
SMEARING = {"ecutwfc": 15, "occupations": "smearing", "smearing": "mv", "degauss": 0.02}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "Al.UPF").write_text(UPF_2.format("Al", " SLA  PZ   NOGX NOGC", "3.0e0"))
    (tmp_path / "Fe.UPF").write_text(UPF_2.format("Fe", "PBE", "8.0"))
    (tmp_path / "Si.UPF").write_text(UPF_1.format("Si", "SLA  PZ   NOGX NOGC   PZ", "4.00000000000"))
    (tmp_path / "no.UPF").write_text("not a pseudopotential\n")
    return tmp_path


def make_dft(folder, **keys) -> Dft:
    return Dft(
        **{
            "code": "espresso",
            "parameters": SMEARING,
            "kspacing": 0.3,
            "pseudo_folder": folder,
            "pseudopotentials": {"Al": "Al.UPF"},
            "store": folder / "store",
            **keys,
        }
    )


def write_input(dft: Dft, atoms: Atoms, folder) -> str:
    calculator = make_espresso(dft, atoms)
    calculator.directory = folder / "run"
    calculator.write_inputfiles(atoms, ["energy", "forces"])
    return (folder / "run" / "espresso.pwi").read_text()


# Cubic 4-atom Al, a = 4.05 Å: |b| = 2π/4.05 = 1.5514/Å. Primitive fcc: planes 111 are a/√3 = 2.3383 Å apart,
# |b| = 2.6871/Å. Twice as long a cell needs half the points.
@pytest.mark.parametrize(
    ("kspacing", "cubic", "primitive", "long"),
    [(0.6, 3, 5, 2), (0.3, 6, 9, 3), (0.25, 7, 11, 4), (2 * np.pi / 4.05 / 4, 4, 7, 2), (10.0, 1, 1, 1)],
)
def test_k_grid_by_hand(kspacing, cubic, primitive, long):
    crystal = bulk("Al", cubic=True, a=4.05)
    assert find_k_grid(crystal, kspacing) == (cubic,) * 3
    assert find_k_grid(bulk("Al", a=4.05), kspacing) == (primitive,) * 3
    assert find_k_grid(crystal * (1, 1, 2), kspacing) == (cubic, cubic, long)


def test_k_grid_along_vacuum():
    slab = bulk("Al", cubic=True, a=4.05)
    slab.center(vacuum=8, axis=2)
    slab.pbc = (True, True, False)
    assert find_k_grid(slab, 0.3) == (6, 6, 1)
    slab.pbc = False
    assert find_k_grid(slab, 0.05) == (1, 1, 1)


def test_a_sheared_cell_counts_the_distance_of_its_planes():
    atoms = Atoms("Al", cell=[[4, 0, 0], [3, 4, 0], [0, 0, 4]], pbc=True)  # heights 3.2, 4, 4 Å
    assert find_k_grid(atoms, 0.5) == (4, 4, 4)  # 2π/3.2/0.5 = 3.93, 2π/4/0.5 = 3.14
    assert find_k_grid(atoms, 0.6) == (4, 3, 3)  # 3.27, 2.62


def test_input_of_a_crystal(folder):
    atoms = bulk("Al", cubic=True, a=4.05)
    text = write_input(make_dft(folder, parameters={**SMEARING, "conv_thr": "1e-8"}), atoms, folder)
    assert "K_POINTS automatic\n6 6 6  0 0 0" in text
    for entry in ("tprnfor          = .true.", "tstress          = .true.", "conv_thr         = 1e-08", "ecutwfc   "):
        assert entry in text
    assert read_espresso_in(io.StringIO(text)).positions == pytest.approx(atoms.positions)


def test_no_entry_is_lost(folder):
    parameters = {**SMEARING, "Hubbard_U(1)": 3.0, "electrons": {"mixing_beta": 0.3}}
    text = write_input(make_dft(folder, parameters=parameters), bulk("Al", a=4.05), folder)
    assert "hubbard_u(1)     = 3.0" in text and "mixing_beta      = 0.3" in text


def test_input_of_a_cluster(folder):
    atoms = Atoms("Al2", positions=[[0, 0, 0], [2.6, 0, 0]], pbc=False)
    atoms.center(vacuum=6)
    dft = make_dft(folder, parameters={**SMEARING, "assume_isolated": "mt"})
    text = write_input(dft, atoms, folder)
    assert "K_POINTS gamma" in text and "tstress          = .false." in text and "'mt'" in text
    periodic = bulk("Al", cubic=True, a=4.05)
    assert "assume_isolated" not in write_input(dft, periodic, folder)


def test_assume_isolated_goes_to_what_it_is_meant_for(folder):
    slab = bulk("Al", cubic=True, a=4.05)
    slab.center(vacuum=8, axis=2)
    slab.pbc = (True, True, False)
    for method, there in (("2D", True), ("mt", False)):
        dft = make_dft(folder, parameters={**SMEARING, "assume_isolated": method})
        assert ("assume_isolated  =" in write_input(dft, slab, folder)) is there


@pytest.mark.parametrize(
    ("parameters", "vacuum", "said"),
    [
        ({}, 2.0, "4.0 Å of vacuum along cell vector 1"),
        ({"assume_isolated": "mt"}, 3.0, "needs twice as much cell as atoms"),
        ({"tot_charge": 1}, 8.0, "set assume_isolated"),
        ({"occupations": "fixed"}, 8.0, "9 electrons cannot be paired"),
        ({"occupations": "fixed", "nspin": 2, "tot_magnetization": 2}, 8.0, "9 electrons cannot be paired"),
    ],
)
def test_clusters_that_the_settings_cannot_describe_are_refused(folder, parameters, vacuum, said):
    atoms = Atoms("Al3", positions=[[0, 0, 0], [4, 4, 4], [8, 8, 8]])
    atoms.center(vacuum=vacuum)
    with pytest.raises(RefusedStructure, match=said):
        make_espresso(make_dft(folder, parameters={**SMEARING, **parameters}), atoms)


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"occupations": "fixed", "tot_charge": 1, "assume_isolated": "mp"},
        {"occupations": "fixed", "nspin": 2, "tot_magnetization": 1},
    ],
)
def test_odd_electrons_that_are_handled(folder, parameters):
    atoms = Atoms("Al3", positions=[[0, 0, 0], [2.6, 0, 0], [1.3, 2.2, 0]])
    atoms.center(vacuum=8)
    dft = make_dft(folder, parameters={**SMEARING, **parameters})
    make_espresso(dft, atoms)
    assert count_electrons(dft, atoms) == 9 - parameters.get("tot_charge", 0)


def test_a_cluster_without_a_cell_is_refused(folder):
    with pytest.raises(RefusedStructure, match="no cell of three vectors"):
        make_espresso(make_dft(folder), Atoms("Al"))


def test_starting_moments_in_bohr_magnetons(folder):
    dft = make_dft(folder, pseudopotentials={"Fe": "Fe.UPF"}, starting_moments={"Fe": 2.0})
    text = write_input(dft, bulk("Fe", cubic=True, a=2.87), folder)
    assert "nspin            = 2" in text
    assert "starting_magnetization(1) = 0.25" in text  # 2 µB of 8 valence electrons


def test_headers_of_both_upf_versions(folder):
    al, si = (read_pseudopotential(folder / name) for name in ("Al.UPF", "Si.UPF"))
    assert (al.element, al.functional, al.valence) == ("Al", "PZ", 3.0)
    assert (si.element, si.functional, si.valence) == ("Si", "PZ", 4.0)
    assert len({al.sha256, si.sha256}) == 2
    with pytest.raises(PseudopotentialError, match="no UPF header"):
        read_pseudopotential(folder / "no.UPF")


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "no file for Al"),
        ({"Al": "absent.UPF"}, r"absent.UPF: No such file"),
        ({"Al": "no.UPF"}, "no UPF header"),
        ({"Al": "Si.UPF"}, "is a pseudopotential of Si; name the one of Al"),
        ({"Al": "Al.UPF", "Fe": "Fe.UPF"}, r"different functionals \(Al PZ, Fe PBE\)"),
    ],
)
def test_wrong_pseudopotentials_are_found(folder, files, said):
    (error,) = find_pseudopotential_errors(folder, files, list(files) or ["Al"], one_functional=True)
    assert re.search(said, error)


def test_check_knows_what_pw_x_needs(folder):
    dft = make_dft(folder, parameters={"nspin": 2, "occupations": "smearing", "Hubbard_U(1)": 3.0})
    found = "\n".join(find_espresso_errors(dft, ["Al", "Si"]))
    for key in (
        "ecutwfc: missing",
        "degauss: missing",
        "starting_moments: missing",
        "hubbard_u(1): a number",
        "for Si",
    ):
        assert key in found
    assert find_espresso_errors(make_dft(folder), ["Al"]) == []


@pytest.mark.parametrize(
    ("dft", "said"),
    [
        ({"code": "espresso"}, "kspacing: missing"),
        ({"code": "emt", "kspacing": 0.3}, "only code espresso uses it"),
        ({"parameters": {"ecutwfk": 15}}, "ecutwfk: not an entry"),
        ({"parameters": {"sistem": {"ecutwfc": 15}}}, "sistem: not a namelist"),
        ({"parameters": {"outdir": "x"}}, "outdir: set by mlip-auto"),
        ({"parameters": {"scf_must_converge": False}}, "lets unconverged results through"),
        ({"recovery": [{"name": "more", "cures": ["out_of_disk"]}]}, "is never retried"),
        ({"recovery": [{"name": "more", "cures": ["killed"], "parameters": {"mixing": 1}}]}, "more.mixing: not an"),
    ],
)
def test_a_bad_dft_section_is_said(folder, dft, said):
    good = {"code": "espresso", "kspacing": 0.3, "pseudo_folder": str(folder), "pseudopotentials": {"Al": "Al.UPF"}}
    with pytest.raises(ConfigError) as refused:
        parse_config({"dft": dft if "code" in dft else {**good, **dft}})
    assert said in str(refused.value)


def test_parameters_flat_or_by_namelist(folder):
    nested = {"system": {"ecutwfc": 15, "degauss": "2d-2"}, "ELECTRONS": {"Mixing_Beta": 0.3}}
    assert flatten_parameters(nested) == {"ecutwfc": 15, "degauss": 0.02, "mixing_beta": 0.3}


def test_what_a_rung_changes():
    base = {"degauss": 0.02, "conv_thr": 1e-8}
    assert find_physics(base, {**base, "mixing_beta": 0.1, "diagonalization": "cg", "conv_thr": 1e-10}) == []
    assert find_physics(base, {**base, "degauss": 0.05, "conv_thr": 1e-6}) == ["conv_thr", "degauss"]
    assert find_physics({}, {"conv_thr": 1e-8}) == []  # pw.x's own is 1e-6


def test_settings_hash_is_physics(folder):
    base = compute_settings_hash(make_dft(folder))
    for same in (
        {"command": "srun pw.x"},
        {"threads": 4},
        {"parameters": {"system": {k: v for k, v in SMEARING.items()}, "electrons": {"mixing_beta": 0.1}}},
        {"max_minutes": 5, "accept_flagged": True},
    ):
        assert compute_settings_hash(make_dft(folder, **same)) == base
    for other in ({"ecutwfc": 20}, {"degauss": 0.01}, {"nspin": 2}, {"tot_charge": 1}, {"conv_thr": 1e-10}):
        assert compute_settings_hash(make_dft(folder, parameters={**SMEARING, **other})) != base
    assert compute_settings_hash(make_dft(folder, kspacing=0.2)) != base
    (folder / "Al.UPF").write_text(UPF_2.format("Al", "PZ", "3.0") + "<!-- another -->\n")
    assert compute_settings_hash(make_dft(folder)) != base


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("     convergence NOT achieved after  40 iterations: stopping", Reason.NOT_CONVERGED),
        ("Error in routine c_bands (1):\n  too many bands are not converged", Reason.DIAGONALISATION),
        ("Error in routine  cdiaghg (12):\n  S matrix not positive definite", Reason.S_MATRIX),
        ("Error in routine  cdiaghg (12):\n   problems computing cholesky", Reason.S_MATRIX),
        ("Error in routine readpp (1):\n file ./Al.UPF not found", Reason.MISSING_FILE),
        ("In file 'buffers.f90', around line 325: Error allocating 6941 bytes: Cannot allocate", Reason.OUT_OF_MEMORY),
        ("slurmstepd: error: Detected 1 oom_kill event in StepId=7.0", Reason.OUT_OF_MEMORY),
        ("Fortran runtime error: No space left on device", Reason.OUT_OF_DISK),
        ("slurmstepd: error: *** STEP 7.0 CANCELLED DUE TO TIME LIMIT ***", Reason.OUT_OF_TIME),
        ("     Maximum CPU time exceeded", Reason.OUT_OF_TIME),
        ("CalledProcessError: Command '['pw.x']' died with <Signals.SIGKILL: 9>.", Reason.KILLED),
        ("mpirun noticed that process rank 0 exited on signal 9 (Killed).", Reason.KILLED),
        ("CalculationFailed: SCF not converged in 2 cycles", Reason.NOT_CONVERGED),
        ("Error in routine setup (1):\n  something new", Reason.OTHER),
    ],
)
def test_reasons(text, reason):
    assert recognise(text) is reason


OUTPUT = """
     Program PWSCF v.6.7MaX starts on 24Nov2026 at 12:21:52
     unit-cell volume          =     448.2927 (a.u.)^3
     number of atoms/cell      =            4
     number of electrons       =        12.00
     iteration #  1     ecut=    12.00 Ry     beta= 0.70
     iteration #  2     ecut=    12.00 Ry     beta= 0.70
     convergence has been achieved in   2 iterations
     Total force =     0.091058     Total SCF correction =     0.000058
   JOB DONE.
"""


@pytest.mark.parametrize(
    ("old", "new", "reason", "said"),
    [
        ("", "", None, ""),
        ("   JOB DONE.\n", "", Reason.TRUNCATED, "ends before its end"),
        ("convergence has been achieved in   2", "convergence NOT achieved after   2", Reason.NOT_CONVERGED, "2 steps"),
        ("     convergence has been achieved in   2 iterations\n", "", Reason.NOT_CONVERGED, "does not say"),
        ("=        12.00", "=        16.00", Reason.REFUSED, "16.0 electrons; valences less tot_charge make 12"),
        ("=            4", "=            3", Reason.REFUSED, "3 atoms, 4 were asked for"),
        ("448.2927", "449.2927", Reason.REFUSED, "were asked for"),
        ("correction =     0.000058", "correction =     0.002", Reason.FORCES, "above dft.max_scf_correction (0.05"),
        ("force =     0.091058", "force =     0.0019", None, ""),  # 0.0015 eV/Å: below a tenth of the limit
        (
            "0.091058     Total SCF correction =     0.000058",
            "0.0019  Total SCF correction = 0.0015",
            "forces",
            "ratio",
        ),
        ("     Program", "     Program PWSCF v.6.7MaX starts on\n     Program", Reason.REFUSED, "started 2 times"),
    ],
)
def test_faults_of_an_output(folder, old, new, reason, said):
    atoms = bulk("Al", cubic=True, a=(448.2927 * Bohr**3) ** (1 / 3))
    fault = find_pw_fault(read_pw_output(OUTPUT.replace(old, new, 1)), atoms, make_dft(folder))
    assert (fault and fault.reason) == reason
    assert fault is None or said in fault.message


def test_numbers_of_an_output():
    output = read_pw_output(OUTPUT)
    assert (output.version, output.scf_steps, output.n_atoms, output.electrons) == ("pw.x 6.7MaX", 2, 4, 12.0)
    assert output.total_force == pytest.approx(0.091058 * Ry / Bohr) and output.volume == pytest.approx(66.43, abs=0.01)
