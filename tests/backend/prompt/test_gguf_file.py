"""Reading a GGUF header, against the gguf package's own writer and reader."""

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter, quantize

from backend.prompt import ModelError
from backend.prompt.gguf_file import GGUFFile
from tests.backend.prompt.tiny import add_tokenizer, save_gguf, train


@pytest.fixture
def path(tmp_path):
    writer = GGUFWriter(tmp_path / "tiny.gguf", "llama")
    add_tokenizer(writer, train())
    writer.add_array("a.floats", [1.5, -2.5])
    writer.add_array("a.strings", ["é", ""])
    writer.add_uint64("a.big", 2**40)
    writer.add_bool("a.flag", True)
    values = np.arange(4 * 64, dtype=np.float32).reshape(4, 64)
    writer.add_tensor("plain", values)
    writer.add_tensor("packed", quantize(values, GGMLQuantizationType.Q4_1), raw_dtype=GGMLQuantizationType.Q4_1)
    save_gguf(writer)
    return tmp_path / "tiny.gguf"


def test_metadata_is_what_the_package_reads(path):
    reader = GGUFReader(path)
    expected = {key: field.contents() for key, field in reader.fields.items() if not key.startswith("GGUF.")}
    assert GGUFFile.open(path).metadata == expected


def test_tensors_are_where_the_package_finds_them(path):
    file = GGUFFile.open(path)
    for tensor in GGUFReader(path).tensors:
        ours = file.tensors[tensor.name]
        assert ours.shape == tuple(reversed(tensor.shape.tolist()))
        assert np.array_equal(file.raw(ours).reshape(-1), tensor.data.view(np.uint8).reshape(-1))


@pytest.mark.parametrize("keep", [0, 3, 4, 20, 1000])
def test_a_file_cut_in_its_header_is_refused(path, keep):
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ModelError, match="not a complete GGUF file"):
        GGUFFile.open(path)


def test_a_file_cut_in_its_tensors_is_refused(path):
    path.write_bytes(path.read_bytes()[:-100])
    file = GGUFFile.open(path)
    with pytest.raises(ModelError, match="cut short"):
        file.raw(file.tensors["packed"])


def test_another_version_is_refused(path):
    data = bytearray(path.read_bytes())
    data[4] = 9
    path.write_bytes(data)
    with pytest.raises(ModelError, match="version 9"):
        GGUFFile.open(path)
