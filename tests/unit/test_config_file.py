"""A broken config file is refused with one message in the user's words; keys are read once."""

import pytest

from mlip_auto.config import ConfigError, load_config
from mlip_auto.config_file import read_yaml


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (b"seed: 1\ndft:\n\tcode: emt\n", ["line 3", "tab", "spaces only"]),
        (b"seed: 1\nname: al\nseed: 2\n", ["line 3", "'seed'", "line 1", "remove one"]),
        (b"dft:\n  code: emt\n  code: vasp\n", ["line 3", "'code'", "line 2"]),
        (b"name: [al\nseed: 1\n", ["line 2", "expected ',' or ']'"]),
        (b"dft:\n  code: emt\n threads: 2\n", ["line 3", "indented alike"]),
        (b"dft:\n  code:emt\n  threads: 2\n", ["line 3", "a blank follows each `:`"]),
        (b"name: al \xff\n", ["UTF-8", "byte 9"]),
        (b"", ["found nothing", "mlip-auto init"]),
        (b"aluminium\n", ["found 'aluminium'", "mapping of sections"]),
    ],
)
def test_what_is_no_config_is_refused_with_its_cure(tmp_path, content, parts):
    path = tmp_path / "config.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as refused:
        load_config(path)
    assert len(refused.value.errors) == 1
    for part in parts:
        assert part in refused.value.errors[0]


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="no such file; `mlip-auto init DIR` writes one"):
        load_config(tmp_path / "config.yaml")
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load_config(tmp_path)


def test_the_same_key_in_two_sections_and_a_merged_key_are_good(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("first: &shared {a: 1, b: 2}\nsecond: {<<: *shared, a: 3}\n")
    assert read_yaml(path) == {"first": {"a": 1, "b": 2}, "second": {"a": 3, "b": 2}}
