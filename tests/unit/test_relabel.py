"""Settings that changed, in words."""

import pytest

from mlip_auto.config_dft import Dft
from mlip_auto.oracles import compute_settings_hash
from mlip_auto.relabel import describe_change, describe_difference

ESPRESSO = {
    "code": "espresso",
    "kspacing": 0.3,
    "pseudo_folder": "/usr/share/espresso/pseudo",
    "pseudopotentials": {"Al": "Al.pz-vbc.UPF"},
}


@pytest.mark.parametrize(
    ("old", "new", "lines"),
    [
        ({"a": 1, "b": {"c": 2}}, {"a": 1, "b": {"c": 2}}, []),
        ({"code": "emt"}, {"code": "tblite"}, ["dft.code: emt -> tblite"]),
        ({"parameters": {"ecutwfc": 15}}, {"parameters": {"ecutwfc": 20}}, ["dft.parameters.ecutwfc: 15 -> 20"]),
        (
            {"parameters": {"degauss": 0.02}, "kspacing": 0.3},
            {"parameters": {"smearing": "mv"}, "kspacing": 0.25},
            [
                "dft.kspacing: 0.3 -> 0.25",
                "dft.parameters.degauss: 0.02 -> not given",
                "dft.parameters.smearing: not given -> mv",
            ],
        ),
    ],
)
def test_differences_name_key_old_and_new(old, new, lines):
    assert describe_difference(old, new) == lines


def test_without_the_old_labels_the_hashes_are_named_all_the_same(tmp_path):
    dft = Dft(code="emt", store=tmp_path / "moved_away")
    said = describe_change("0" * 64, dft)
    assert f"settings 000000000000 -> {compute_settings_hash(dft)[:12]}" in said
    assert "holds no label of the old ones" in said


def test_a_changed_cutoff_of_pw_x(pw_x, tmp_path):
    """The labels are real ones: one Al atom at 12 Ry."""
    from ase.build import bulk

    from mlip_auto.labelling import label_structures
    from mlip_auto.structures import structure_id

    smearing = {"occupations": "smearing", "smearing": "mv", "degauss": 0.05}
    old, new = (
        Dft(**ESPRESSO | {"kspacing": 1.0}, parameters={"ecutwfc": cutoff, **smearing}, store=tmp_path / "store")
        for cutoff in (12, 16)
    )
    atoms = bulk("Al")
    atoms.info.update(structure_id=structure_id(atoms), generation=0)
    assert label_structures([atoms], old).labels
    hashes = [compute_settings_hash(dft)[:12] for dft in (old, new)]
    assert describe_change(compute_settings_hash(old), new) == (
        f"settings {hashes[0]} -> {hashes[1]}: dft.parameters.ecutwfc: 12 -> 16"
    )
