from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from candlebeam.errors import UsageError
from candlebeam.pipelines.beam_options import beam_options, runs_in_process
from candlebeam.pipelines.runner_config import (
    available_cores,
    early_worker_count,
    load_runner_config,
    option_names,
)
from tests.command_line import PROJECT

DIRECT = str(PROJECT / "runner_configs" / "direct.yaml")


def config(folder: Path, text: str) -> str:
    path = folder / "runner.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ("runner: FnApiRunner", ["--runner=FnApiRunner"]),
        ("parallelism: 4\nscale: 0.5", ["--parallelism=4", "--scale=0.5"]),
        ("streaming: true\nno_auth: false\nregion: null\nzone:", ["--streaming"]),
        ("experiments: [a, b=1]", ["--experiments=a", "--experiments=b=1"]),
        ("experiments: []", []),
        ("name: 'two words'", ["--name=two words"]),
        ("name: ''", ["--name="]),
        ("version: '1.10'", ["--version=1.10"]),
        ("# all of it\n{}", []),
        ("ünï: é", ["--ünï=é"]),
    ],
)
def test_mapping_becomes_arguments(tmp_path: Path, text: str, arguments: list[str]) -> None:
    assert load_runner_config(config(tmp_path, text)) == arguments


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a mapping of Beam options, found nothing"),
        ("- runner", "expected a mapping of Beam options, found a list"),
        ("runner", "expected a mapping of Beam options, found a str"),
        ("a: [", "expected YAML, found"),
        ("a: 2024-13-45", "expected YAML, found month must be in 1..12"),
        ("a: !!int x", "expected YAML, found invalid literal for int"),
        ("a: !!timestamp x", "expected YAML, found "),
        ("a: " + "[" * 1500, "expected YAML, found "),
        ("a: !!python/object:os.system x", "expected YAML, found could not determine a constr"),
        ("1: a", "expected the name of a Beam option, found 1"),
        ("--runner: x", "expected the name of a Beam option, found '--runner'"),
        ("a b: x", "expected the name of a Beam option, found 'a b'"),
        ("'': x", "expected the name of a Beam option, found ''"),
        ("a=b: x", "expected the name of a Beam option, found 'a=b'"),
        ("a: {b: c}", "a: expected text or a number, found a dict"),
        ("a: [b, [c]]", "a: expected text or a number, found a list"),
        ("a: [true]", "a: expected text or a number, found a bool"),
        ("a: [null]", "a: expected text or a number, found nothing"),
        ("a: 2024-03-01", "a: expected text or a number, found a date"),
    ],
)
def test_what_is_no_such_mapping_is_wrong_usage(tmp_path: Path, text: str, message: str) -> None:
    path = config(tmp_path, text)
    with pytest.raises(UsageError, match=f"^{path}: {message}"):
        load_runner_config(path)


def test_file_that_cannot_be_read_is_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"missing\.yaml: No such file or directory"):
        load_runner_config(str(tmp_path / "missing.yaml"))
    with pytest.raises(UsageError, match="Is a directory"):
        load_runner_config(str(tmp_path))
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="binary: expected YAML, found "):
        load_runner_config(str(tmp_path / "binary"))


@given(st.binary(max_size=40))
def test_any_bytes_are_arguments_or_wrong_usage(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(data)
    try:
        arguments = load_runner_config(str(path))
    except UsageError:
        return
    assert all(argument.startswith("--") for argument in arguments)


def test_names_of_options() -> None:
    assert option_names(["--a=1", "--b", "c", "-d", "--e=f=g"]) == {"a", "b", "e"}


# What becomes of them


def test_without_anything_the_run_is_in_process_on_all_cores() -> None:
    options = beam_options([], None)
    values = options.get_all_options()
    assert runs_in_process(options)
    assert values["runner"] == "FnApiRunner"
    assert values["direct_running_mode"] == "in_memory"
    assert values["direct_num_workers"] == available_cores() >= 1


def test_arguments_count_more_than_the_file_and_the_file_more_than_defaults(
    tmp_path: Path,
) -> None:
    path = config(tmp_path, "direct_num_workers: 7\ndirect_running_mode: multi_processing")
    values = beam_options(["--direct_num_workers=3"], path).get_all_options()
    assert values["direct_num_workers"] == 3
    assert values["direct_running_mode"] == "multi_processing"
    assert values["runner"] == "FnApiRunner"


def test_list_on_the_command_line_takes_the_place_of_that_of_the_file(tmp_path: Path) -> None:
    path = config(tmp_path, "experiments: [a, b]")
    assert set(beam_options([], path).get_all_options()["experiments"]) >= {"a", "b"}
    found = beam_options(["--experiments=c"], path).get_all_options()["experiments"]
    assert "c" in found
    assert not {"a", "b"} & set(found)


def test_other_runner_is_left_alone(tmp_path: Path) -> None:
    options = beam_options([], config(tmp_path, "runner: FlinkRunner\nflink_master: h:8081"))
    assert not runs_in_process(options)
    assert options.get_all_options()["flink_master"] == "h:8081"


@pytest.mark.parametrize(
    ("arguments", "text", "message"),
    [
        (["--nonsense=1"], "{}", "^the command line: --nonsense=1 is no option of Candlebeam or"),
        (["extra"], "{}", "^the command line: extra is no option"),
        ([], "nonsense: 1", r"runner\.yaml: --nonsense=1 is no option of Candlebeam or Beam"),
        (["--direct_num_workers=x"], "{}", "^the command line: argument --direct_num_workers: inv"),
        ([], "direct_num_workers: x", r"runner\.yaml: argument --direct_num_workers: invalid int"),
        (["--direct_run=in_memory"], "{}", "--direct_run=in_memory is no option"),
    ],
)
def test_option_that_beam_does_not_know_is_wrong_usage(
    tmp_path: Path, arguments: list[str], text: str, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        beam_options(arguments, config(tmp_path, text))


def test_reading_begins_early_only_where_beam_is_given_no_choice_to_make() -> None:
    assert early_worker_count([], None) == available_cores()
    assert early_worker_count(["--save_main_session"], None) == available_cores()
    for argument in ("--runner=X", "--direct_num_workers=1", "--direct_running_mode=in_memory"):
        assert early_worker_count([argument], None) == 0
    assert early_worker_count([], DIRECT) == 0


def test_direct_config_is_what_is_done_without_one() -> None:
    options = beam_options([], DIRECT)
    assert runs_in_process(options)
    values, defaults = options.get_all_options(), beam_options([], None).get_all_options()
    assert values["direct_num_workers"] in (0, available_cores())
    for name in ("runner", "direct_running_mode"):
        assert values[name] == defaults[name]
