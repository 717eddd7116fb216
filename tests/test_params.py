"""params.yaml: the project's own loads; anything else that is wrong is named in one line."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from fer.errors import ParamsError
from fer.params import FacesParams, MonitoringParams, Params, load_params, parse_params

ROOT = Path(__file__).parents[1]
DOCUMENT: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text())
Document = dict[str, Any]
Key = tuple[str, ...]

patient = settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def keys(document: Document, above: Key = ()) -> Iterator[Key]:
    for name, value in document.items():
        yield (*above, name)
        if isinstance(value, dict) and (*above, name) != ("validate", "min_rows"):
            yield from keys(value, (*above, name))


KEYS = list(keys(DOCUMENT))
# Sections with defaults: pictures are analysed far from any params.yaml too.
OPTIONAL = {
    key
    for key in KEYS
    if (key[0] == "faces" and len(key) == 2)
    or key[0] in {"video", "monitoring"}
    or (key[0] == "profiles" and len(key) > 2)
}


def changed(key: Key, change: Callable[[Document, str], object]) -> Document:
    document = copy.deepcopy(DOCUMENT)
    section = document
    for name in key[:-1]:
        section = section[name]
    change(section, key[-1])
    return document


def with_value(key: str, value: Any) -> Document:
    return changed(tuple(key.split(".")), lambda section, name: section.update({name: value}))


def complaint(document: Any) -> str:
    with pytest.raises(ParamsError) as caught:
        parse_params(document)
    assert caught.value.exit_code == 2
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_the_projects_own_file_loads_as_it_stands() -> None:
    params = load_params(ROOT / "params.yaml")
    assert params.seed == DOCUMENT["seed"]
    assert params.validate_.min_rows == DOCUMENT["validate"]["min_rows"]
    assert params.train.finetune.learning_rate == DOCUMENT["train"]["finetune"]["learning_rate"]
    assert params.model_dump(by_alias=True, mode="json") == Params.model_validate(
        DOCUMENT
    ).model_dump(by_alias=True, mode="json")


def test_params_cannot_be_changed_in_passing() -> None:
    params = parse_params(copy.deepcopy(DOCUMENT))
    with pytest.raises(ValidationError):
        params.train.batch_size = 1


@pytest.mark.parametrize("key", KEYS, ids=".".join)
def test_a_misspelt_key_is_named_with_the_nearest_valid_one(key: Key) -> None:
    name = key[-1]
    wrong = name[0] + name[2:] if len(name) > 3 else name + "x"

    def misspell(section: Document, right: str) -> None:
        section[wrong] = section.pop(right)

    message = complaint(changed(key, misspell))
    assert f"unknown key '{'.'.join((*key[:-1], wrong))}'" in message
    assert message.endswith(f"did you mean '{'.'.join(key)}'?")


@pytest.mark.parametrize("key", [key for key in KEYS if key not in OPTIONAL], ids=".".join)
def test_a_missing_key_is_named(key: Key) -> None:
    message = complaint(changed(key, lambda section, name: section.pop(name)))
    assert message == f"params: '{'.'.join(key)}' is missing."


def test_faces_have_defaults_and_they_are_the_projects() -> None:
    assert FacesParams() == parse_params(copy.deepcopy(DOCUMENT)).faces


def test_monitoring_has_defaults_and_they_are_the_projects() -> None:
    assert MonitoringParams() == parse_params(copy.deepcopy(DOCUMENT)).monitoring
    assert "no baseline would ever do" in complaint(with_value("monitoring.min_faces", 1001))


def test_a_key_like_no_other_is_answered_with_the_valid_ones() -> None:
    message = complaint(with_value("gate.zzz", 1))
    assert "unknown key 'gate.zzz'; valid keys here are min_accuracy, " in message


def test_a_misspelt_split_is_named_with_the_nearest_one() -> None:
    message = complaint(with_value("validate.min_rows", {"trian": 5}))
    assert message == (
        "params: unknown key 'validate.min_rows.trian'; did you mean 'validate.min_rows.train'?"
    )


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", -1),
        ("seed", 1.5),
        ("data.source", ""),
        ("data.handle", "fer2013"),
        ("data.sha256", "ABC"),
        ("data.sha256", "A" * 64),
        ("data.synthetic.images_per_class", 9),
        ("data.synthetic.duplicates", 1.1),
        ("validate.class_share", [0.3, 0.1]),
        ("validate.class_share", [0.1]),
        ("validate.min_rows", {"train": -1}),
        ("validate.mean_grey", [float("nan"), 160]),
        ("prepare.validation_share", 0),
        ("prepare.validation_share", 0.5),
        ("prepare.near_twin_correlation", 0.5),
        ("prepare.near_twin_shift", 13),
        ("prepare.drop_twins", "perhaps"),
        ("train.batch_size", 0),
        ("train.batch_size", True),
        ("train.batch_size", "many"),
        ("train.batch_size", None),
        ("train.precision", "float16"),
        ("train.finetune.learning_rate", 0),
        ("train.finetune.learning_rate", float("inf")),
        ("train.finetune.learning_rate", float("nan")),
        ("train.finetune.learning_rate", True),
        ("train.augment", [1, 2]),
        ("train", None),
        ("package.name", "Big Name"),
        ("package.name", "../up"),
        ("faces.detector", "dlib"),
    ],
)
def test_a_value_out_of_range_is_named(key: str, value: Any) -> None:
    message = complaint(with_value(key, value))
    assert key.rsplit(".", 1)[-1] in message
    assert message.startswith("params: '")


def test_a_long_value_is_not_repeated_whole() -> None:
    assert len(complaint(with_value("train.batch_size", "x" * 10_000))) < 300
    assert len(complaint(with_value("train.augment", [1] * 10_000))) < 300


def test_two_phases_of_no_epochs_train_nothing() -> None:
    document = with_value("train.head.epochs", 0)
    document["train"]["finetune"]["epochs"] = 0
    document["train"]["smaller_first"] = []
    assert "nothing would train" in complaint(document)
    document["train"]["head"]["epochs"] = 1
    parse_params(document)


def test_sizes_of_progressive_resizing() -> None:
    train = parse_params(
        with_value("train.smaller_first", [{"size": 32, "epochs": 2}, {"size": 48, "epochs": 1}])
    ).train
    sizes = [train.size_in(epoch) for epoch in range(1, 6)]
    assert sizes == [32, 32, 48, train.input_size, train.input_size]
    everything = [{"size": 32, "epochs": train.epochs}]
    assert "no epoch at input_size" in complaint(with_value("train.smaller_first", everything))
    misspelt = complaint(with_value("train.smaller_first", [{"sise": 32, "epochs": 1}]))
    assert misspelt.endswith("did you mean 'train.smaller_first.0.size'?")


def test_mixup_is_off_in_the_last_epochs() -> None:
    mixup = {"alpha": 0.4, "cutmix": 0.5, "off_epochs": 2}
    train = parse_params(with_value("train.mixup", mixup)).train
    last = [train.epochs + ahead for ahead in (-2, -1, 0)]
    assert [train.mixup_in(epoch) for epoch in last] == [0.4, 0, 0]
    assert [train.cutmix_in(epoch) for epoch in last] == [0.5, 0, 0]


def test_the_chosen_profile_changes_what_it_names() -> None:
    document = with_value("profiles.gpu", {"batch_size": 7, "finetune": {"epochs": 99}})
    assert parse_params(document).train == parse_params(copy.deepcopy(DOCUMENT)).train
    document["profile"] = "gpu"
    train = parse_params(document).train
    assert (train.batch_size, train.finetune.epochs) == (7, 99)
    assert train.finetune.learning_rate == DOCUMENT["train"]["finetune"]["learning_rate"]
    assert parse_params(document).model_dump()["train"]["batch_size"] == 7


def test_a_profile_is_one_name() -> None:
    assert complaint(with_value("profile", ["gpu"])).startswith("params: 'profile'")


def test_the_profile_that_is_not_chosen_is_checked_too() -> None:
    message = complaint(with_value("profiles.gpu.batch_size", 0))
    assert message.startswith("params with profile gpu: 'train.batch_size'")


def test_several_faults_are_counted_the_misspelt_first() -> None:
    document = with_value("train.batch_size", 0)
    document["train"]["drpout"] = document["train"].pop("dropout")
    document["seed"] = -1
    message = complaint(document)
    assert "unknown key 'train.drpout'; did you mean 'train.dropout'?" in message
    assert "(2 more)" in message


def test_numbers_in_the_notation_that_yaml_takes_for_text_are_numbers() -> None:
    document = yaml.safe_load(
        yaml.safe_dump(DOCUMENT).replace("learning_rate: 0.0006", "learning_rate: 6e-4")
    )
    assert document["train"]["finetune"]["learning_rate"] == "6e-4"
    assert parse_params(document).train.finetune.learning_rate == 0.0006


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "no mapping"),
        ("- a\n- b\n", "no mapping"),
        ("seed: [1\n", "cannot be read as YAML"),
        ("seed: 1\nseed: 2\n", "the key 'seed' stands there twice"),
        ("train: {a: 1, a: 2}\n", "the key 'a' stands there twice"),
        ("seed: 2013-99-99\n", "cannot be read as YAML"),
        ("!!python/object/apply:os.system ['true']\n", "cannot be read as YAML"),
        ("? [a]\n: b\n", "cannot be read as YAML"),
        ("[" * 5000, "cannot be read as YAML"),
        ("a: \x00\n", "cannot be read as YAML"),
    ],
)
def test_a_file_that_is_no_params_says_why_in_one_line(
    tmp_path: Path, text: str, match: str
) -> None:
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(ParamsError, match=match) as caught:
        load_params(tmp_path / "params.yaml")
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "params.yaml") in str(caught.value)


def test_a_file_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="does not exist"):
        load_params(tmp_path / "params.yaml")
    with pytest.raises(ParamsError, match="cannot be read"):
        load_params(tmp_path)
    (tmp_path / "latin").write_bytes(b"seed: \xe9\n")
    with pytest.raises(ParamsError, match="cannot be read"):
        load_params(tmp_path / "latin")


def test_anchors_and_merges_of_yaml_work(tmp_path: Path) -> None:
    text = (ROOT / "params.yaml").read_text().replace("  head:  ", "  head: &head  ")
    (tmp_path / "params.yaml").write_text(text)
    assert load_params(tmp_path / "params.yaml") == load_params(ROOT / "params.yaml")


scalars = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10) | st.dates()
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=8) | st.integers() | st.none(), inner, max_size=3)
    ),
    max_leaves=5,
)


@patient
@given(key=st.sampled_from(KEYS), value=values)
def test_any_value_anywhere_is_params_or_one_error(key: Key, value: Any) -> None:
    document = changed(key, lambda section, name: section.update({name: value}))
    try:
        assert isinstance(parse_params(document), Params)
    except ParamsError as error:
        assert "\n" not in str(error).replace(repr(value), "")  # noqa: PT017 - either is right


@patient
@given(st.dictionaries(st.text(max_size=8) | st.integers() | st.none() | st.booleans(), values))
@example({"\n": None})
def test_any_mapping_is_an_error(document: Document) -> None:
    complaint(document)


@patient
@given(
    content=st.binary(max_size=200)
    | st.text(max_size=200).map(lambda one: one.encode("utf-8", "replace"))
)
def test_any_file_is_an_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "params.yaml").write_bytes(content)
    with pytest.raises(ParamsError) as caught:
        load_params(tmp_path / "params.yaml")
    assert "\n" not in str(caught.value)
