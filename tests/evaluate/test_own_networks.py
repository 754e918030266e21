"""Networks that a file of one's own makes, plain folders of images, and how mistakes with them are answered."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import pytest
import torch

from fastadv import PixelSpace, models
from fastadv.cli.folder_labels import label_folder
from fastadv.cli.model_specs import load_subjects
from fastadv.data import ImageSet, load_test
from fastadv.data.sources.plain_folder import imagenet_ids, load_folder
from fastadv.evaluate import Record, Sweep
from fastadv.evaluate.attack_specs import attack_class
from fastadv.evaluate.records import RecordFile
from fastadv.evaluate.sweep import fingerprint, run
from fastadv.utils.user_code import hash_of_code, load_named
from tests.data.pictures import jpeg, write_folder
from tests.evaluate.test_model_specs import options, save_weights

CODE = """
from dataclasses import dataclass
from torch import nn

class Net(nn.Sequential):
    def __init__(self, classes=10):
        super().__init__(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4, classes))

def make():
    return Net()

def of_timm():
    from fastadv import models
    return models.create("timm/test_resnet", num_classes=3)

def wrong():
    return 3

def needs(path):
    return Net()

def raises():
    raise RuntimeError("no weights")

net, number = Net(3), 5
"""


TWO = """
import torch
from torch import nn

class Flipped(nn.Sequential):
    def forward(self, images):
        return super().forward(images).flip(1)

def _made(kind):
    network = kind(nn.Flatten(), nn.Linear(64, 10))
    with torch.no_grad():
        network[1].weight.copy_(torch.arange(640).view(10, 64).sin())
        network[1].bias.zero_()
    return network

def plain():
    return _made(nn.Sequential)

def flipped():
    return _made(Flipped)
"""


@pytest.fixture
def code(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(CODE)
    return tmp_path / "mine.py"


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """A plain folder of three classes, two images each."""
    write_folder(tmp_path / "images", {name: [jpeg(40, 50, 2 * i), jpeg(50, 40, 2 * i + 1)] for i, name in NAMES})
    return tmp_path / "images"


NAMES = list(enumerate(("apple", "banana", "cherry")))


def test_a_network_of_ones_own(code: Path, caplog: pytest.LogCaptureFixture) -> None:
    given = options("--dataset", "digits", "--space", "symmetric")
    loaded = load_subjects([f"{code}:make", f"again={code}:make"], given)
    assert [subject.name for subject in loaded.subjects] == ["make", "again"]
    assert loaded.paths["make"] == f"{code.resolve()}:make"
    assert all(not subject.model.training and subject.space == PixelSpace.symmetric() for subject in loaded.subjects)


def test_a_network_of_timm_brings_its_normalisation(
    code: Path, photographs: Path, caplog: pytest.LogCaptureFixture
) -> None:
    given = ["--dataset", "folder", "--data", str(photographs), "--data.size", "64"]
    with caplog.at_level(logging.INFO):
        [subject] = load_subjects([f"{code}:of_timm"], options(*given)).subjects
    assert subject.space == PixelSpace.symmetric()
    assert f"PixelSpace.symmetric(); from pretrained_cfg of {code}:of_timm" in caplog.text
    load_subjects([f"{code}:of_timm"], options(*given, "--space", "imagenet"))
    assert "says otherwise: size 160 (not 64)" in caplog.text
    assert "PixelSpace.symmetric() (not PixelSpace.imagenet())" in caplog.text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{code}:mak", r"mine.py does not define .mak. \(did you mean make\?\)"),
        ("{code}:wrong", r"mine.py:wrong\(\) must return a torch.nn.Module, got int"),
        ("{code}:needs", r"mine.py:needs\(\) raised TypeError: .*path"),
        ("{code}:raises", r"mine.py:raises\(\) raised RuntimeError: no weights"),
        ("{code}:number", "mine.py:number must be a function that returns a network, got int"),
        ("{code}:net", "net has 3 classes, and digits has 10"),
        ("{dir}/gone.py:make", "there is no file .*gone.py"),
        ("{dir}/broken.py:make", r"broken.py cannot be run: line 2: ZeroDivisionError"),
        ("no_such_module:make", "there is no module no_such_module; a file is named as in path/to/file.py:NAME"),
        ("{w}", r"w.pth is a file, which does not say what network .* as in timm/NAME@.*w.pth"),
        ("{hf}", "is a folder of transformers: name it as hf/"),
        ("hf/{dir}", "is not a folder of transformers: it has no config.json"),
    ],
)
def test_mistakes(tmp_path: Path, code: Path, text: str, message: str) -> None:
    (tmp_path / "broken.py").write_text("x = 1\ny = x / 0\n")
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf" / "preprocessor_config.json").write_text("{}")
    places = {"code": code, "dir": tmp_path, "w": save_weights(tmp_path / "w.pth"), "hf": tmp_path / "hf"}
    with pytest.raises((ValueError, OSError), match=message):
        load_subjects([text.format(**places)], options("--dataset", "digits", "--space", "unit"))


def test_a_file_is_run_once_and_finds_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "neighbour_of_mine.py").write_text("value = []\n")
    (tmp_path / "one.py").write_text("from neighbour_of_mine import value\nvalue.append(1)\nother = object()\n")
    found = [load_named(str(tmp_path / "one.py"), name) for name in ("value", "other", "other")]
    assert found[0] == [1] and found[1] is found[2]


def test_an_edited_file_is_run_again(tmp_path: Path) -> None:
    file = tmp_path / "edited.py"
    for number in (1, 2, 2):
        file.write_text(f"value = {number}\n")
        assert load_named(str(file), "value") == number
    kinds = []
    for number in (3, 4):  # of the same size, and within a second
        file.write_text(
            f"import fastadv\nclass Mine(fastadv.attacks.FGSM):\n    name = 'mine'\n    number: int = {number}\n"
        )
        kinds.append(attack_class(f"{file}:Mine"))
    assert [kind.number for kind in kinds] == [3, 4]
    assert kinds[1].__annotations__ == {"number": int}  # not as in files with annotations from the future


def test_networks_with_equal_weights_and_other_code_are_measured_apart(tmp_path: Path) -> None:
    """A defence without weights would otherwise have the records of the network that it defends."""
    (tmp_path / "two.py").write_text(TWO)
    given = options("--dataset", "digits", "--space", "unit")
    subjects = load_subjects([f"{tmp_path}/two.py:{name}" for name in ("plain", "flipped")], given).subjects
    assert fingerprint(subjects[0].model.state_dict()) == fingerprint(subjects[1].model.state_dict())
    images = ImageSet(torch.randint(256, (40, 1, 8, 8), dtype=torch.uint8), torch.arange(40) % 10, tuple("0123456789"))
    sweep = Sweep(dataset="digits", images=images, attacks=["fgsm"], eps=[4])
    records = run(sweep, subjects, RecordFile(tmp_path / "records.jsonl", Record))
    assert [record.model for record in records] == ["plain"] * 2 + ["flipped"] * 2
    assert records[0].correct != records[2].correct and len({record.key for record in records}) == 4


def test_changed_code_is_other_code(tmp_path: Path) -> None:
    file = tmp_path / "two.py"
    file.write_text(TWO)
    before = hash_of_code(str(file), "plain")
    assert hash_of_code(str(file), "plain") == before != hash_of_code(str(file), "flipped")
    file.write_text(TWO.replace("flip(1)", "flip(0)"))
    assert hash_of_code(str(file), "plain") != before
    assert hash_of_code("json", "loads") != hash_of_code("json", "load")


# --- plain folders ---------------------------------------------------------------------------------------------------


def of_three(path: Path, classes: int = 3) -> str:
    torch.save(models.create("timm/test_resnet", num_classes=classes).state_dict(), path)
    return f"timm/test_resnet@{path}"


def test_labels_are_places_of_the_sorted_folders(
    tmp_path: Path, photographs: Path, caplog: pytest.LogCaptureFixture
) -> None:
    given = options("--dataset", "folder", "--data", str(photographs), "--space", "imagenet", "--size", "64")
    with caplog.at_level(logging.INFO):
        loaded = load_subjects([of_three(tmp_path / "w.pth")], given)
    assert loaded.images.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert "labels are places among the 3 folders, sorted by name: 0 is apple, 2 is cherry" in caplog.text
    with pytest.raises(ValueError, match=r"folder has 3 classes; the classes of a folder are its subfolders, unless "):
        load_subjects([of_three(tmp_path / "four.pth", 4)], given)
    (photographs / "classes.txt").write_text("cherry\nother\napple\nbanana\n")
    loaded = load_subjects([of_three(tmp_path / "four.pth", 4)], given)
    assert loaded.images.labels.tolist() == [2, 2, 3, 3, 0, 0]


def test_some_of_imagenets_classes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """For a network of 1,000 classes; one of as many classes as there are folders counts these."""
    write_folder(tmp_path / "some", {imagenet_ids()[i]: [jpeg(40, 50, i)] for i in (7, 99, 998)})
    given = options("--dataset", "folder", "--data", str(tmp_path / "some"), "--size", "64", "--space", "symmetric")
    with caplog.at_level(logging.INFO):
        loaded = load_subjects([of_three(tmp_path / "w.pth", 1000)], given)
    assert loaded.images.labels.tolist() == [7, 99, 998] and len(loaded.images.classes) == 1000
    assert "labels are places among ImageNet's 1,000 classes, by the WordNet ids that the 3 folders" in caplog.text
    assert load_subjects([of_three(tmp_path / "3.pth")], given).images.labels.tolist() == [0, 1, 2]


def test_untagged_weights_of_imagenets_classes_have_the_librarys_normalisation(
    tmp_path: Path, photographs: Path
) -> None:
    """Those of other classes may have been trained in any way."""
    given = options("--dataset", "folder", "--data", str(photographs))
    (photographs / "classes.txt").write_text("\n".join(["apple", "banana", "cherry", *map(str, range(997))]))
    subject = load_subjects([of_three(tmp_path / "w.pth", 1000)], given).subjects[0]
    assert subject.space == PixelSpace.symmetric()
    network = models.create("torchvision/squeezenet1_1", num_classes=1000)
    torch.save({f"module.{name}": value for name, value in network.state_dict().items()}, tmp_path / "t.pth")
    text = f"torchvision/squeezenet1_1@{tmp_path / 't.pth'}"
    sized = options("--dataset", "folder", "--data", str(photographs), "--size", "64")
    assert load_subjects([text], sized).subjects[0].space == PixelSpace.imagenet()
    (photographs / "classes.txt").unlink()
    with pytest.raises(ValueError, match="--space is needed for w"):
        load_subjects([of_three(tmp_path / "w.pth")], sized)


def test_folders_of_a_run_have_its_labels(photographs: Path) -> None:
    """By the names of its classes; with other names its own order counts, and the classes are compared later."""
    images = load_folder(photographs)
    labelled = label_folder(images, [("cherry", "apple", "other", "banana")], [], say=False)
    assert labelled.labels.tolist() == [1, 1, 3, 3, 0, 0] and labelled.classes == ("cherry", "apple", "other", "banana")
    assert labelled.key(0) == images.key(0)
    assert label_folder(images, [("a", "b", "c")], [], say=False) is images


def test_folders_with_numbers_are_sorted_as_text_and_that_is_said(tmp_path: Path) -> None:
    write_folder(tmp_path, {name: [jpeg(40, 50)] for name in ("1", "2", "10")})
    with pytest.warns(UserWarning, match="sorted alphabetically, 10 before 2"):
        assert load_folder(tmp_path).classes == ("1", "10", "2")
    (tmp_path / "classes.txt").write_text("1\n2\n10\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_folder(tmp_path).classes == ("1", "2", "10")


def test_a_plain_folder_as_imagenet_is_answered_with_the_other_name(tmp_path: Path, photographs: Path) -> None:
    given = options("--dataset", "imagenet", "--data", str(photographs), "--space", "imagenet", "--size", "64")
    with pytest.raises(OSError, match=r"has no val/: .*; for images in CLASS/IMAGE alone, give --dataset folder"):
        load_subjects([of_three(tmp_path / "w.pth")], given)


def test_folders_that_are_none(tmp_path: Path, photographs: Path) -> None:
    write_folder(tmp_path / "set" / "val", {"apple": [jpeg(40, 50)]})
    with pytest.raises(ValueError, match=r"holds val/, which is the layout of the data set imagenet"):
        load_folder(tmp_path / "set")
    with pytest.raises(FileNotFoundError, match="expected one that holds CLASS/IMAGE"):
        load_folder(tmp_path / "gone")
    with pytest.raises(ValueError, match="pass it with --data DIR"):
        load_test("folder")
    (photographs / "classes.txt").write_text("apple\nbanana\n")
    with pytest.raises(ValueError, match=r"\['?cherry|cherry.*images/classes.txt"):
        load_folder(photographs)
