"""Files and directories that are replaced as a whole."""

import contextlib
import os
import resource

import pytest

from rws_keras.errors import UserError
from rws_keras.files import make_directory, replace_directory, replace_file


@contextlib.contextmanager
def full_disk(left=0):
    """No file may become longer than so many bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (left, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_file_is_replaced_at_the_end(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with replace_file(path) as temporary:
        temporary.write_text("new")
        assert temporary.suffix == ".txt"
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_interrupted_write_leaves_what_was_there(tmp_path, error):
    (tmp_path / "file").write_text("old")
    (tmp_path / "directory").mkdir()
    (tmp_path / "directory" / "a").write_text("old")

    def interrupt(path):
        path.write_text("ne")
        raise error

    with pytest.raises(error), replace_file(tmp_path / "file") as temporary:
        interrupt(temporary)
    with pytest.raises(error), replace_directory(tmp_path / "directory") as temporary:
        interrupt(temporary / "a")
    assert sorted(os.listdir(tmp_path)) == ["directory", "file"]
    assert (tmp_path / "file").read_text() == (tmp_path / "directory" / "a").read_text() == "old"


def test_a_full_disk_leaves_what_was_there_and_says_what_to_do(tmp_path):
    (tmp_path / "file").write_text("old")
    with (
        full_disk(),
        pytest.raises(UserError, match=r"file cannot be written: File too large\. Free some space"),
        replace_file(tmp_path / "file") as temporary,
    ):
        temporary.write_text("new")
    assert os.listdir(tmp_path) == ["file"]
    assert (tmp_path / "file").read_text() == "old"


def test_what_is_renamed_is_on_the_disk_before(tmp_path, monkeypatch):
    done = []

    def watch(name, describe):
        real = getattr(os, name)

        def call(*arguments):
            done.append((name, describe(*arguments)))
            real(*arguments)

        monkeypatch.setattr(os, name, call)

    def opened(descriptor):
        return os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}"))

    watch("fsync", opened)
    watch("replace", lambda old, new: os.path.basename(new))
    watch("rename", lambda old, new: os.path.basename(new))
    with replace_file(tmp_path / "file") as temporary:
        temporary.write_text("new")
    assert done == [("fsync", ".partial-file"), ("replace", "file"), ("fsync", tmp_path.name)]
    done.clear()
    with replace_directory(tmp_path / "directory") as temporary:
        (temporary / "below").mkdir()
        (temporary / "below" / "a").write_text("new")
    *content, renamed, last = done
    assert set(content) == {("fsync", name) for name in ("a", "below", ".partial-directory")}
    assert renamed[1] == "directory"
    assert last == ("fsync", tmp_path.name)


def test_a_directory_is_replaced_and_what_a_killed_process_left_is_gone(tmp_path):
    for name in ("directory", ".partial-directory", ".old-directory"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "old").write_text("")
    with replace_directory(tmp_path / "directory") as temporary:
        (temporary / "new").write_text("")
    assert os.listdir(tmp_path) == ["directory"]
    assert os.listdir(tmp_path / "directory") == ["new"]


def test_paths_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    nowhere = tmp_path / "nowhere" / "scores.csv"
    with pytest.raises(UserError, match=r"create its directory first"), replace_file(nowhere):
        pass
    with pytest.raises(UserError, match=r"file/below cannot be written: .*choose another path"):
        make_directory(tmp_path / "file" / "below")
    with pytest.raises(UserError, match=r"file cannot be written: File exists"):
        make_directory(tmp_path / "file")
