"""Pooling as sentence-transformers stores it, in its older words and its newer ones."""

import json

import pytest

from backend.loader.sentence_model import Pooling, read_pooling
from backend.prompt.errors import ModelError

OLD = "sentence_transformers.models."
POOLING = {"type": f"{OLD}Pooling", "path": "1_Pooling"}
NORMALIZE = {"type": f"{OLD}Normalize", "path": "2_Normalize"}
TRANSFORMER = {"type": f"{OLD}Transformer", "path": ""}


@pytest.fixture
def write(tmp_path):
    def write(modules=None, **pooling):
        if modules is not None:
            (tmp_path / "modules.json").write_text(json.dumps(modules))
        if pooling:
            (tmp_path / "1_Pooling").mkdir()
            (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
        return tmp_path

    return write


def test_a_plain_model_says_nothing(write):
    assert read_pooling(write()) is None


@pytest.mark.parametrize(
    ("config", "mode"),
    [
        ({"pooling_mode_lasttoken": True, "pooling_mode_mean_tokens": False}, "last"),
        ({"pooling_mode_mean_tokens": True}, "mean"),
        ({"pooling_mode_cls_token": True}, "cls"),
        ({"pooling_mode_max_tokens": True}, "max_tokens"),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_lasttoken": True}, "mean+last"),
        ({"pooling_mode": "mean"}, "mean"),
        ({"pooling_mode": ["lasttoken"]}, "last"),
        ({"word_embedding_dimension": 8}, "last"),
    ],
    ids=str,
)
def test_modes(write, config, mode):
    assert read_pooling(write(**config)) == Pooling(mode, normalise=True)


def test_modules_say_whether_vectors_are_normalised(write):
    folder = write([TRANSFORMER, POOLING], pooling_mode_mean_tokens=True)
    assert read_pooling(folder) == Pooling("mean", normalise=False)
    (folder / "modules.json").write_text(json.dumps([TRANSFORMER, POOLING, NORMALIZE]))
    assert read_pooling(folder) == Pooling("mean", normalise=True)


def test_modules_name_the_folder_of_the_pooling(write, tmp_path):
    (tmp_path / "pool").mkdir()
    (tmp_path / "pool" / "config.json").write_text('{"pooling_mode_mean_tokens": true}')
    kind = "sentence_transformers.sentence_transformer.modules.pooling.Pooling"
    assert read_pooling(write([TRANSFORMER, {"type": kind, "path": "pool"}, NORMALIZE])) == Pooling("mean")


def test_a_cross_encoder_pools_nothing(write):
    assert read_pooling(write([TRANSFORMER])) is None


def test_what_is_not_computed_is_refused(write):
    with pytest.raises(ModelError, match=r"modules\.json has modules that are not supported: Dense"):
        read_pooling(write([TRANSFORMER, POOLING, {"type": f"{OLD}Dense", "path": "2_Dense"}]))


@pytest.mark.parametrize("text", ["{", "{}x", "[1]", '[{"path": ""}]', "3"])
def test_a_broken_file_is_named(write, text):
    folder = write()
    (folder / "modules.json").write_text(text)
    with pytest.raises(ModelError, match=r"modules\.json is no list of modules"):
        read_pooling(folder)
