import gzip
import json
import re
import shutil

import numpy as np
import pytest
import yaml

from stlight.cli import main
from stlight.data import DataError
from stlight.data.fetching.store import Library
from stlight.experiments.yaml_files import ExperimentError
from stlight.registry.dataset_specs import DATASETS
from stlight.runtime.atomic_files import has_changed
from tests.data.real_files import publish, write_taxibj, zip_of


@pytest.fixture
def published(site, tmp_path, rng, workflow):
    """Small data sets on a web site, as the real ones are published, and a workflow that fetches them from there."""
    publish(site, tmp_path / "there", workflow, rng)
    return workflow


@pytest.fixture
def library(published, tmp_path):
    return Library(published, tmp_path / "data")


def locked(library):
    return json.loads(library._lock_path.read_text())


def tree(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != ".lock"}


@pytest.mark.parametrize("dataset", DATASETS)
def test_a_data_set_is_fetched_unpacked_and_recorded(library, dataset, site, tmp_path):
    said = []
    marker = library.fetch(dataset, say=said.append)
    there, here = tree(tmp_path / "there"), tree(tmp_path / "data")
    names = [name for name in there if any(name.startswith(f) for f in DATASETS[dataset].files)]
    assert {name: here[name] for name in names} == {name: there[name] for name in names}
    # Nothing is left but the data and the marker: no archive, no part.
    assert set(here) == {*names, f"fetched/{dataset}.json"}
    assert set(json.loads(marker.read_text())["files"]) == {source.path for source in library.of(dataset)}
    assert {source.path for source in library.of(dataset)} <= set(locked(library))
    assert all(f"fetched from {site.url}" in line for line in said[::2])
    # A second time nothing is asked for, and all is verified.
    site.asked.clear()
    library.fetch(dataset, say=said.append)
    assert site.asked == []
    assert said[-1].endswith("as in the lock file")
    assert not has_changed(marker, tmp_path / "data")


def test_what_is_fetched_later_must_be_what_was_fetched_first(library, site, tmp_path, rng):
    library.fetch("taxibj", say=print)
    (tmp_path / "data" / "taxibj" / "dataset.npz").unlink()
    write_taxibj(tmp_path / "new", rng)
    site.files["/taxibj/taxibj_dataset.zip"] = zip_of(tmp_path / "new" / "taxibj")
    with pytest.raises(DataError, match="with SHA-256 .*, in the lock file .*: put taxibj_dataset.zip there by hand"):
        library.fetch("taxibj", say=print)
    assert not (tmp_path / "data" / "taxibj" / "dataset.npz").exists()


def test_wrong_bytes_are_known_by_the_published_md5(library, site):
    site.files["/mmnist/train-images-idx3-ubyte.gz"] += b"x"
    with pytest.raises(DataError, match="with MD5 .*, published"):
        library.fetch("mmnist", say=print)


def test_files_that_a_user_has_are_verified_in_place_and_never_changed(library, site, tmp_path, rng):
    there, data = tmp_path / "there", tmp_path / "data"
    (data / "moving_mnist").mkdir(parents=True)
    for name in DATASETS["mmnist"].files:
        (data / name).write_bytes((there / name).read_bytes())
    said = []
    library.fetch("mmnist", say=said.append)
    assert site.asked == []
    assert [line.rpartition(": ")[2] for line in said] == ["as published", "as published"]
    content = gzip.decompress((data / DATASETS["mmnist"].files[0]).read_bytes())
    before = gzip.compress(content, 5)
    (data / DATASETS["mmnist"].files[0]).write_bytes(before)
    marker = data / "fetched" / "mmnist.json"
    assert has_changed(marker, data)
    # What was taken away is not what has changed: what was made of it may be all that is needed.
    (data / DATASETS["mmnist"].files[0]).unlink()
    assert not has_changed(marker, data)
    (data / DATASETS["mmnist"].files[0]).write_bytes(before)
    with pytest.raises(DataError, match=r"is not the published one \(MD5 .*, published .*\): move it away .* --accept"):
        library.fetch("mmnist", say=said.append)
    assert (data / DATASETS["mmnist"].files[0]).read_bytes() == before
    # Or it is taken as it is, and from then on it must stay so.
    library.fetch("mmnist", accept=True, say=said.append)
    assert library.look(library.of("mmnist")[0]).verdict == "verified"
    (data / DATASETS["mmnist"].files[0]).write_bytes(gzip.compress(content, 9))
    assert "in the lock file" in library.look(library.of("mmnist")[0]).words


def test_a_folder_is_known_by_its_files(library, tmp_path):
    library.fetch("kth", say=print)
    image = next((tmp_path / "data" / "kth" / "walking").rglob("image_0003.jpg"))
    content = image.read_bytes()
    image.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(DataError, match="kth is not the published one"):
        library.fetch("kth", say=print)
    image.write_bytes(content)
    assert library.look(library.of("kth")[0]).verdict == "verified"


def test_a_data_set_of_which_something_is_missing_is_known_by_its_counts(library, site, tmp_path):
    """Nothing else tells for folders that were there before, of which no checksum is known."""
    shutil.copytree(tmp_path / "there" / "kth", tmp_path / "data" / "kth")
    shutil.rmtree(tmp_path / "data" / "kth" / "walking" / "person02_walking_d1_uncomp")
    with pytest.raises(DataError, match="kth has 17 for training and 6 test clips, expected 18 and 6: .* fetch kth --accept"):
        library.fetch("kth", say=print)
    library.fetch("kth", accept=True, say=print)
    library.fetch("kth", say=print)
    assert locked(library)["counts"] == {"kth": [17, 6]}
    assert site.asked == []


def test_what_is_fetched_and_cannot_be_read_is_thrown_away_and_not_recorded(library, site, tmp_path):
    good = site.files["/taxibj/taxibj_dataset.zip"]
    (tmp_path / "bad").mkdir()
    np.savez(tmp_path / "bad" / "dataset.npz", X_train=np.zeros(3))
    site.files["/taxibj/taxibj_dataset.zip"] = zip_of(tmp_path / "bad")
    with pytest.raises(DataError, match="dataset.npz lacks X_test: it holds X_train: thrown away"):
        library.fetch("taxibj", say=print)
    assert locked(library) == {}
    site.files["/taxibj/taxibj_dataset.zip"] = good
    library.fetch("taxibj", say=print)
    assert set(locked(library)) == {"taxibj/dataset.npz", "taxibj/taxibj_dataset.zip"}


def test_a_new_edition_of_what_was_fetched_first_can_be_accepted(library, site, tmp_path, rng):
    library.fetch("taxibj", say=print)
    (tmp_path / "data" / "taxibj" / "dataset.npz").unlink()
    write_taxibj(tmp_path / "new", rng)
    site.files["/taxibj/taxibj_dataset.zip"] = zip_of(tmp_path / "new" / "taxibj")
    library.fetch("taxibj", accept=True, say=print)
    library.fetch("taxibj", say=print)


@pytest.mark.parametrize("content", ["{", "5", '{"taxibj/dataset.npz": 3}'])
def test_a_damaged_lock_file_is_named(published, tmp_path, content):
    (published / "data.lock.json").write_text(content)
    with pytest.raises(ExperimentError, match=r"data\.lock\.json: (not valid JSON|expected bytes and sha256)"):
        Library(published, tmp_path / "data")


def test_files_that_cannot_be_read_stop_the_fetch(library, tmp_path):
    (tmp_path / "data" / "taxibj").mkdir(parents=True)
    np.savez(tmp_path / "data" / "taxibj" / "dataset.npz", X_train=np.zeros(3))
    with pytest.raises(DataError, match="dataset.npz lacks X_test: it holds X_train"):
        library.fetch("taxibj", say=print)


def test_what_no_checksum_is_known_of_is_said_to_be_so(library, tmp_path):
    (tmp_path / "data" / "taxibj").mkdir(parents=True)
    (tmp_path / "data" / "taxibj" / "dataset.npz").write_bytes((tmp_path / "there" / "taxibj" / "dataset.npz").read_bytes())
    said = []
    library.fetch("taxibj", say=said.append)
    assert said == [f"{tmp_path / 'data' / 'taxibj' / 'dataset.npz'}: there, but no checksum of it is known"]
    assert locked(library) == {}


def test_an_archive_put_there_by_hand_is_unpacked(library, site, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "kth_action.zip").write_bytes(site.files["/kth/kth_action.zip"])
    library.fetch("kth", say=print)
    assert site.asked == []
    assert len(list((tmp_path / "data" / "kth").rglob("*.jpg"))) == 6 * 4 * 31
    assert (tmp_path / "data" / "kth_action.zip").read_bytes() == site.files["/kth/kth_action.zip"]


def test_what_was_fetched_but_not_yet_unpacked_is_not_fetched_again(library, site, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "kth_action.zip.fetched").write_bytes(site.files["/kth/kth_action.zip"])
    library.fetch("kth", say=print)
    assert site.asked == []
    assert not (tmp_path / "data" / "kth_action.zip.fetched").exists()
    assert {"kth", "kth_action.zip"} <= set(locked(library))


def test_a_folder_that_is_there_in_part_is_not_fetched_over(library, site, tmp_path):
    (tmp_path / "data" / "kth" / "boxing").mkdir(parents=True)
    (tmp_path / "data" / "kth" / "boxing" / "mine").write_bytes(b"mine")
    with pytest.raises(DataError, match="kth is not whole, but boxing is there: move away what is there, or add"):
        library.fetch("kth", say=print)
    assert site.asked == []
    assert (tmp_path / "data" / "kth" / "boxing" / "mine").read_bytes() == b"mine"


def test_a_download_that_is_no_archive_is_thrown_away(library, site, tmp_path):
    content = site.files["/taxibj/taxibj_dataset.zip"]
    site.files["/taxibj/taxibj_dataset.zip"] = content[: len(content) // 2]
    with pytest.raises(DataError, match=r"taxibj_dataset\.zip\.fetched is (not a whole|neither a)"):
        library.fetch("taxibj", say=print)
    site.files["/taxibj/taxibj_dataset.zip"] = content
    library.fetch("taxibj", say=print)


@pytest.mark.parametrize(
    "words",
    ["lacks 'members'|dependency", "is not of type|does not match"],
)
def test_the_list_of_sources_is_checked(published, tmp_path, words):
    sources = yaml.safe_load((published / "data_sources.yaml").read_text())
    if "members" in words:
        del sources["kth"]["files"][0]["members"]
    else:
        sources["kth"]["files"][0]["path"] = "../kth"
    (published / "data_sources.yaml").write_text(yaml.safe_dump(sources))
    with pytest.raises(ExperimentError, match=rf"data_sources.yaml: kth\.files\[0\].*({words})"):
        Library(published, tmp_path / "data")


def test_the_sources_are_those_that_the_configuration_names(workflow, tmp_path):
    library = Library(workflow, tmp_path)
    for dataset, names in ((name, spec.files) for name, spec in DATASETS.items()):
        found = [f"{s.path}/{m}" if s.is_folder else s.path for s in library.of(dataset) for m in s.members or [""]]
        assert tuple(found) == names
    assert all(entry["sha256"] and entry["bytes"] for name, entry in locked(library).items() if name != "counts")


def test_offline_one_line_says_what_to_put_where(workflow, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for scheme in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(scheme, "http://127.0.0.1:9")
    assert main(["fetch", "mmnist", "--workflow", str(workflow)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert (
        "put train-images-idx3-ubyte.gz (MD5 f68b3c2dcbeaaa9fbdd348bbdeb94873) there by hand, at data/moving_mnist/train"
        in line
    )
    assert "put mnist_test_seq.npy (MD5 be083ec986bfe91a449d63653c411eb2) there by hand" in line


def test_all_goes_on_where_one_fails(published, site, tmp_path, capsys):
    site.status["/taxibj/taxibj_dataset.zip"] = 403
    options = ["--workflow", str(published), "--data-root", str(tmp_path / "data")]
    assert main(["fetch", "all", *options]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("stlight: taxibj: ")
    assert "403" in line
    assert sorted(path.stem for path in (tmp_path / "data" / "fetched").glob("*.json")) == ["kth", "mfmnist", "mmnist"]
    assert main(["fetch", "cifar", *options]) == 1
    assert "no data set 'cifar' to fetch; there are mmnist" in capsys.readouterr().err


def test_the_doctor_says_what_is_there_and_what_waits(published, site, tmp_path, capsys):
    options = ["--workflow", str(published), "--data-root", str(tmp_path / "data"), "--scale"]
    assert main(["doctor", *options, "paper"]) == 1
    text = capsys.readouterr().out
    assert "dataset.npz is missing: python -m stlight fetch taxibj\n  stops 1 run at scale paper: table1_literature" in text
    assert "stops 79 runs at scale paper: " in text
    assert "disk: about 60 MB to fetch and 5500 MB to prepare" in text
    assert main(["doctor", *options, "demo"]) == 0
    capsys.readouterr()

    assert main(["fetch", "all", *options[:4]]) == 0
    for dataset in DATASETS:
        assert main(["prepare", dataset, "files", *options[:4]]) == 0
    capsys.readouterr()
    assert main(["doctor", *options, "paper"]) == 1
    assert "taxibj has 6 test clips, scale paper asks for 500" in capsys.readouterr().out
    scale = published / "scales" / "paper.yaml"
    scale.write_text(re.sub("test_clips: [0-9]+", "test_clips: 6", scale.read_text()))
    assert main(["doctor", *options, "paper"]) == 0
    text = capsys.readouterr().out
    assert "30 for training, 6 test clips" in text
    assert "18 for training, 6 test clips" in text
    assert "disk: about 0 MB to fetch and 0 MB to prepare" in text
    assert text.count(" yes") == 4

    (tmp_path / "data" / "moving_mnist" / "mnist_test_seq.npy").write_bytes(b"")
    np.savez(tmp_path / "data" / "taxibj" / "dataset.npz", X_train=np.zeros(3))
    assert main(["doctor", *options, "paper"]) == 1
    text = capsys.readouterr().out
    assert "mnist_test_seq.npy is wrong: SHA-256" in text
    assert "dataset.npz is wrong: SHA-256" in text
