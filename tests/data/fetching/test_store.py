import gzip
import json
import re
import shutil

import numpy as np
import pytest
import yaml

from stlight.cli import main
from stlight.data import DataError
from stlight.data.fetching.store import DatasetStore
from stlight.experiments.yaml_files import ExperimentError
from stlight.registry.dataset_specs import DATASETS
from stlight.runtime.atomic_files import has_changed
from tests.data.real_files import COUNTS, write_taxibj, zip_of


@pytest.fixture
def store(published, tmp_path):
    return DatasetStore(published, tmp_path / "data")


def locked(store):
    return json.loads(store._lock_path.read_text())


def tree(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != ".lock"}


@pytest.mark.parametrize("dataset", COUNTS)
def test_a_data_set_is_fetched_unpacked_and_recorded(store, there, dataset, site, tmp_path):
    said = []
    marker = store.fetch(dataset, say=said.append)
    expected = {name: content for name, content in tree(there).items() if name.startswith(DATASETS[dataset].files)}
    # No archive and no part is left.
    assert tree(tmp_path / "data") == expected | {f"fetched/{dataset}.json": marker.read_bytes()}
    assert {source.path for source in store.sources(dataset)} == set(locked(store))
    assert all(f"fetched from {site.url}" in line for line in said[::2])
    site.asked.clear()
    store.fetch(dataset, say=said.append)
    assert site.asked == []
    assert said[-1].endswith("as in the lock file")
    assert not has_changed(marker, tmp_path / "data")


def test_a_later_download_must_equal_the_first(store, site, tmp_path, rng):
    store.fetch("taxibj", say=print)
    (tmp_path / "data" / "taxibj" / "dataset.npz").unlink()
    write_taxibj(tmp_path / "new", rng)
    site.files["/taxibj/taxibj_dataset.zip"] = zip_of(tmp_path / "new" / "taxibj")
    with pytest.raises(DataError, match="dataset.npz is not the published one: SHA-256 .*, in the lock file "):
        store.fetch("taxibj", say=print)
    assert not (tmp_path / "data" / "taxibj" / "dataset.npz").exists()


def test_wrong_bytes_fail_the_published_md5(store, site):
    site.files["/mmnist/train-images-idx3-ubyte.gz"] += b"x"
    with pytest.raises(DataError, match="ubyte.gz.part is not the published one: MD5 .*, published .*: put train-images"):
        store.fetch("mmnist", say=print)


def test_a_user_s_files_are_verified_in_place_and_never_changed(store, there, site, tmp_path):
    data = tmp_path / "data"
    (data / "moving_mnist").mkdir(parents=True)
    for name in DATASETS["mmnist"].files:
        (data / name).write_bytes((there / name).read_bytes())
    said = []
    store.fetch("mmnist", say=said.append)
    assert site.asked == []
    assert [line.rpartition(": ")[2] for line in said] == ["as published", "as published"]
    content = gzip.decompress((data / DATASETS["mmnist"].files[0]).read_bytes())
    before = gzip.compress(content, 5)
    (data / DATASETS["mmnist"].files[0]).write_bytes(before)
    marker = data / "fetched" / "mmnist.json"
    assert has_changed(marker, data)
    # A missing file has not changed: the prepared data may be all that is needed.
    (data / DATASETS["mmnist"].files[0]).unlink()
    assert not has_changed(marker, data)
    (data / DATASETS["mmnist"].files[0]).write_bytes(before)
    with pytest.raises(DataError, match=r"is not the published one: MD5 .*, published .* replace it, .* --accept"):
        store.fetch("mmnist", say=said.append)
    assert (data / DATASETS["mmnist"].files[0]).read_bytes() == before
    # Once accepted, it must stay as it is.
    store.fetch("mmnist", accept=True, say=said.append)
    assert store.verify(store.sources("mmnist")[0]) == "as in the lock file"
    (data / DATASETS["mmnist"].files[0]).write_bytes(gzip.compress(content, 9))
    with pytest.raises(DataError, match="in the lock file"):
        store.verify(store.sources("mmnist")[0])


def test_a_changed_file_in_a_folder_is_found(store, tmp_path):
    store.fetch("kth", say=print)
    image = next((tmp_path / "data" / "kth" / "walking").rglob("image_0003.jpg"))
    content = image.read_bytes()
    image.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(DataError, match="kth is not the published one"):
        store.fetch("kth", say=print)
    image.write_bytes(content)
    assert store.verify(store.sources("kth")[0]) == "as in the lock file"


def test_missing_clips_are_found_by_counting(store, there, site, tmp_path):
    """Counts are all that can tell for a folder without a known checksum."""
    shutil.copytree(there / "kth", tmp_path / "data" / "kth")
    shutil.rmtree(tmp_path / "data" / "kth" / "walking" / "person02_walking_d1_uncomp")
    with pytest.raises(DataError, match="kth has 17 for training and 6 test clips, expected 18 and 6: .* fetch kth --accept"):
        store.fetch("kth", say=print)
    store.fetch("kth", accept=True, say=print)
    store.fetch("kth", say=print)
    assert set(locked(store)) == {"kth"}
    assert site.asked == []


def test_an_unreadable_download_is_deleted_and_not_recorded(store, site, tmp_path):
    good = site.files["/taxibj/taxibj_dataset.zip"]
    (tmp_path / "bad").mkdir()
    np.savez(tmp_path / "bad" / "dataset.npz", X_train=np.zeros(3))
    site.files["/taxibj/taxibj_dataset.zip"] = zip_of(tmp_path / "bad")
    with pytest.raises(DataError, match="dataset.npz: X_train is .*: deleted"):
        store.fetch("taxibj", say=print)
    assert locked(store) == {}
    site.files["/taxibj/taxibj_dataset.zip"] = good
    store.fetch("taxibj", say=print)
    assert set(locked(store)) == {"taxibj/dataset.npz"}


def test_another_version_of_a_download_can_be_accepted(store, site, tmp_path, rng):
    store.fetch("taxibj", say=print)
    (tmp_path / "data" / "taxibj" / "dataset.npz").unlink()
    write_taxibj(tmp_path / "new", rng)
    site.files["/taxibj/taxibj_dataset.zip"] = zip_of(tmp_path / "new" / "taxibj")
    store.fetch("taxibj", accept=True, say=print)
    store.fetch("taxibj", say=print)


@pytest.mark.parametrize("content", ["{", "5", '{"taxibj/dataset.npz": 3}'])
def test_a_damaged_lock_file_is_named(published, tmp_path, content):
    (published / "data.lock.json").write_text(content)
    with pytest.raises(ExperimentError, match=r"data\.lock\.json: expected a SHA-256 for each path"):
        DatasetStore(published, tmp_path / "data")


def test_a_user_s_unreadable_files_are_an_error(store, tmp_path):
    (tmp_path / "data" / "taxibj").mkdir(parents=True)
    np.savez(tmp_path / "data" / "taxibj" / "dataset.npz", X_train=np.zeros(3))
    with pytest.raises(DataError, match="dataset.npz: X_train is .*: move it away"):
        store.fetch("taxibj", say=print)


def test_files_without_a_known_checksum_are_reported(store, there, tmp_path):
    (tmp_path / "data" / "taxibj").mkdir(parents=True)
    (tmp_path / "data" / "taxibj" / "dataset.npz").write_bytes((there / "taxibj" / "dataset.npz").read_bytes())
    said = []
    store.fetch("taxibj", say=said.append)
    assert said == [f"{tmp_path / 'data' / 'taxibj' / 'dataset.npz'}: no checksum is known"]
    assert locked(store) == {}


def test_an_archive_put_there_by_hand_is_unpacked_and_kept(store, site, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "kth_action.zip").write_bytes(site.files["/kth/kth_action.zip"])
    store.fetch("kth", say=print)
    assert site.asked == []
    assert len(list((tmp_path / "data" / "kth").rglob("*.jpg"))) == 6 * 4 * 31
    assert (tmp_path / "data" / "kth_action.zip").read_bytes() == site.files["/kth/kth_action.zip"]


def test_an_incomplete_folder_is_not_overwritten(store, site, tmp_path):
    (tmp_path / "data" / "kth" / "boxing").mkdir(parents=True)
    (tmp_path / "data" / "kth" / "boxing" / "mine").write_bytes(b"mine")
    with pytest.raises(DataError, match="kth exists but is incomplete: move it away, or add"):
        store.fetch("kth", say=print)
    assert site.asked == []
    assert (tmp_path / "data" / "kth" / "boxing" / "mine").read_bytes() == b"mine"


def test_a_download_that_is_no_archive_is_deleted(store, site, tmp_path):
    content = site.files["/taxibj/taxibj_dataset.zip"]
    site.files["/taxibj/taxibj_dataset.zip"] = content[: len(content) // 2]
    with pytest.raises(DataError, match=r"taxibj_dataset\.zip is not a complete"):
        store.fetch("taxibj", say=print)
    site.files["/taxibj/taxibj_dataset.zip"] = content
    store.fetch("taxibj", say=print)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda sources: sources["kth"]["files"][0].update(path="../kth"), r"kth\.files\[0\]\.path: .*should match pattern"),
        (lambda sources: sources.update(kht=sources.pop("kth")), "the file: unknown data set 'kht'; did you mean 'kth'"),
    ],
)
def test_the_list_of_sources_is_checked(published, tmp_path, change, words):
    sources = yaml.safe_load((published / "data_sources.yaml").read_text())
    change(sources)
    (published / "data_sources.yaml").write_text(yaml.safe_dump(sources))
    with pytest.raises(ExperimentError, match=f"data_sources.yaml: {words}"):
        DatasetStore(published, tmp_path / "data")


def test_the_sources_match_the_registry(workflow, tmp_path):
    store = DatasetStore(workflow, tmp_path)
    for dataset, names in ((name, spec.files) for name, spec in DATASETS.items()):
        found = [f"{s.path}/{m}" if m else s.path for s in store.sources(dataset) for m in s.members or [""]]
        assert tuple(found) in (names, ())
    assert set(locked(store)) <= {name for spec in DATASETS.values() for name in spec.files}


def test_without_a_network_one_line_says_what_to_put_where(workflow, tmp_path, capsys, monkeypatch):
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


def test_the_other_data_sets_are_fetched_if_one_fails(published, site, tmp_path, capsys):
    site.status["/taxibj/taxibj_dataset.zip"] = 403
    options = ["--workflow", str(published), "--data-root", str(tmp_path / "data")]
    assert main(["fetch", "all", *options]) == 1
    (line,) = (line for line in capsys.readouterr().err.splitlines() if "skipped" not in line)
    assert line.startswith("stlight: taxibj: ")
    assert "403" in line
    assert sorted(path.stem for path in (tmp_path / "data" / "fetched").glob("*.json")) == ["kth", "mfmnist", "mmnist"]
    assert main(["fetch", "cifar", *options]) == 1
    assert "no data set 'cifar' to fetch; there are mmnist, mfmnist" in capsys.readouterr().err


@pytest.fixture
def without_sources(published):
    """A workflow in which TaxiBJ cannot be downloaded."""
    sources = yaml.safe_load((published / "data_sources.yaml").read_text())
    del sources["taxibj"]
    (published / "data_sources.yaml").write_text(yaml.safe_dump(sources))
    return published


def test_a_data_set_without_sources_is_verified_by_its_content(without_sources, tmp_path, rng, capsys):
    data = tmp_path / "data"
    options = ["--workflow", str(without_sources), "--data-root", str(data)]
    assert main(["fetch", "taxibj", *options]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("taxibj/dataset.npz is missing and data_sources.yaml has no address for it: put it there by hand")
    assert main(["doctor", *options]) == 0
    assert re.search(r"taxibj +taxibj/dataset.npz +missing", capsys.readouterr().out)
    write_taxibj(data, rng)
    assert main(["fetch", "taxibj", *options]) == 0
    assert capsys.readouterr().out == "taxibj: 30 for training, 6 test clips, no checksum is known\n"
    assert json.loads((data / "fetched" / "taxibj.json").read_text())["counts"] == [30, 6]
    assert main(["prepare", "taxibj", "files", *options]) == 0
    capsys.readouterr()
    main(["doctor", *options])
    text = capsys.readouterr().out
    assert re.search(r"taxibj +taxibj/dataset.npz +no checksum is known", text)
    assert re.search(r"taxibj +content +30 for training, 6 test clips", text)
    (data / "taxibj" / "dataset.npz").write_bytes(b"damaged")
    assert main(["fetch", "taxibj", *options]) == 1
    assert "dataset.npz is not a complete .npz file" in capsys.readouterr().err


def test_fetch_all_skips_a_data_set_without_sources(without_sources, tmp_path, capsys):
    data = tmp_path / "data"
    assert main(["fetch", "all", "--workflow", str(without_sources), "--data-root", str(data)]) == 0
    assert "taxibj: skipped because data_sources.yaml has no address for it" in capsys.readouterr().err.splitlines()
    assert sorted(path.stem for path in (data / "fetched").glob("*.json")) == ["kth", "mfmnist", "mmnist"]


def test_an_installed_package_is_not_written_to(published, tmp_path):
    (published.parent / "__init__.py").touch()
    lock = published / "data.lock.json"
    lock.write_text(json.dumps({"kth/boxing": "0" * 64}))
    before = tree(published)
    store = DatasetStore(published, tmp_path / "data")
    store.fetch("taxibj", say=print)
    assert tree(published) == before
    assert set(locked(store)) == {"kth/boxing", "taxibj/dataset.npz"}
    assert DatasetStore(published, tmp_path / "data").verify(store.sources("taxibj")[0]) == "as in the lock file"
