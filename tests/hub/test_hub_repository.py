"""Hub repositories against a server on loopback: what is fetched, proven, remembered, and refused."""

import errno
import hashlib
import os
import shutil
from pathlib import Path

import pytest

from deepseek.errors import HubError
from deepseek.hub import resolve, resolve_config, transfer
from hub_server import HubServer, Repo

MIB = 1 << 20
BIG = "model-00001-of-00002.safetensors"
WANTED = {
    "config.json",
    "tokenizer.json",
    "chat_template.jinja",
    "model.safetensors.index.json",
    BIG,
    "model-00002-of-00002.safetensors",
}


def names_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def part_of(folder: Path) -> Path:
    (part,) = (folder.parent.parent / "blobs").glob("*.deepseek.incomplete")
    return part


def test_fetches_weights_and_texts_but_neither_pickle_nor_code(repo: Repo, files: dict[str, bytes]) -> None:
    found = resolve("org/tiny")
    assert found.source == "hub"
    assert found.revision == "a" * 40
    assert names_in(found.path) == WANTED
    assert all((found.path / name).read_bytes() == files[name] for name in WANTED)


def test_weights_in_folders_are_other_models(server: HubServer) -> None:
    server.repos["org/tiny"] = Repo.of(
        {"config.json": b"{}", "weights.safetensors": b"w", "x/weights.safetensors": b"x"}
    )
    assert names_in(resolve("org/tiny").path) == {"config.json", "weights.safetensors"}


def test_reports_every_byte_once(repo: Repo, files: dict[str, bytes]) -> None:
    seen: list[tuple[int, int | None]] = []
    resolve("org/tiny", report=lambda label, done, total, unit="bytes": seen.append((done, total)))
    whole = sum(len(files[name]) for name in WANTED)
    assert max(done for done, _ in seen) == whole
    assert {total for _, total in seen} == {whole}


def test_second_time_asks_once_and_fetches_nothing(repo: Repo, server: HubServer) -> None:
    resolve("org/tiny")
    server.forget()
    resolve("org/tiny")
    assert server.requests == ["GET /api/models/org/tiny"]


def test_a_full_commit_needs_no_question_once_it_is_here(repo: Repo, server: HubServer) -> None:
    resolve("org/tiny", revision="a" * 40)
    server.forget()
    resolve("org/tiny", revision="a" * 40)
    assert server.requests == []


def test_token_goes_to_the_hub_and_not_to_the_host_that_stores_the_bytes(repo: Repo, server: HubServer) -> None:
    repo.token = "secret"
    with pytest.raises(HubError, match=r"no repository org/tiny, or it is private.*HF_TOKEN"):
        resolve("org/tiny")
    resolve("org/tiny", token="secret")
    assert server.tokens_at_store
    assert set(server.tokens_at_store) == {None}


def test_token_from_the_environment(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    repo.token = "secret"
    monkeypatch.setenv("HF_TOKEN", "secret")
    assert names_in(resolve("org/tiny").path) == WANTED


def test_cut_connection_is_taken_up_where_it_broke(repo: Repo, server: HubServer, files: dict[str, bytes]) -> None:
    server.faults.cut_after[BIG] = [2 * MIB, MIB]
    found = resolve("org/tiny")
    assert (found.path / BIG).read_bytes() == files[BIG]
    asked = [asked for name, asked in server.ranges if name == BIG]
    assert len(asked) == 3
    assert asked[0] is None
    assert all(again and again.startswith("bytes=") for again in asked[1:])
    assert server.sent[BIG] <= len(files[BIG]) + 2 * MIB  # at most the block that was in flight, twice


def test_server_that_ignores_ranges_gives_a_right_file_nevertheless(
    repo: Repo, server: HubServer, files: dict[str, bytes]
) -> None:
    server.faults.cut_after[BIG] = [2 * MIB]
    server.faults.ignore_range = True
    assert (resolve("org/tiny").path / BIG).read_bytes() == files[BIG]
    assert [name for name, _ in server.ranges].count(BIG) == 2


def test_part_that_the_hub_no_longer_continues_is_fetched_anew(
    repo: Repo, server: HubServer, files: dict[str, bytes]
) -> None:
    server.faults.cut_after[BIG] = [2 * MIB]
    server.faults.no_range = True
    assert (resolve("org/tiny").path / BIG).read_bytes() == files[BIG]


def test_busy_server_is_asked_again(repo: Repo, server: HubServer) -> None:
    server.faults.status[BIG] = [503, 429]
    assert names_in(resolve("org/tiny").path) == WANTED


def test_connection_that_stays_broken_keeps_what_arrived(
    repo: Repo, server: HubServer, files: dict[str, bytes]
) -> None:
    server.faults.cut_after[BIG] = [2 * MIB] + [0] * 10
    with pytest.raises(HubError, match="run the same again; what has arrived is kept"):
        resolve("org/tiny")
    server.faults.cut_after.clear()
    server.forget()
    found = resolve("org/tiny")
    assert (found.path / BIG).read_bytes() == files[BIG]
    assert 0 < server.sent[BIG] <= len(files[BIG]) - MIB
    assert not list((found.path.parent.parent / "blobs").glob("*.incomplete"))


def test_changed_byte_is_found_and_fetched_again(repo: Repo, server: HubServer, files: dict[str, bytes]) -> None:
    server.faults.corrupt[BIG] = 1
    assert (resolve("org/tiny").path / BIG).read_bytes() == files[BIG]


def test_byte_that_changes_every_time_is_refused_and_not_kept(repo: Repo, server: HubServer, tmp_path: Path) -> None:
    server.faults.corrupt[BIG] = 9
    digest = hashlib.sha256(repo.commits["a" * 40][BIG]).hexdigest()
    with pytest.raises(HubError, match=rf"{BIG} arrived with .*announced sha256:{digest}, twice"):
        resolve("org/tiny")
    assert not list((tmp_path / "hf").rglob(digest))
    assert not list((tmp_path / "hf").rglob(BIG))


def test_small_files_are_checked_too(repo: Repo, server: HubServer) -> None:
    server.faults.corrupt["config.json"] = 9
    with pytest.raises(HubError, match=r"config\.json arrived with git:"):
        resolve("org/tiny")


def test_file_longer_than_announced_is_cut_off(repo: Repo, server: HubServer, files: dict[str, bytes]) -> None:
    server.listing_override = [
        {"rfilename": "config.json", "size": 3, "blobId": "c" * 40},
        {"rfilename": "model.safetensors", "size": 9, "lfs": {"sha256": "d" * 64, "size": 9, "pointerSize": 1}},
    ]
    repo.commits["a" * 40]["model.safetensors"] = b"x" * 5000
    with pytest.raises(HubError, match="longer than the"):
        resolve("org/tiny")


@pytest.mark.parametrize("name", ["../outside.json", "/etc/outside.json", "a\\..\\outside.json", "C:outside.json"])
def test_listed_path_that_leaves_the_folder_is_refused(
    server: HubServer, repo: Repo, name: str, tmp_path: Path
) -> None:
    server.listing_override = [
        {"rfilename": "model.safetensors", "size": 1, "blobId": "c" * 40},
        {"rfilename": name if "/" not in name else f"additional_chat_templates/{name}", "size": 1, "blobId": "c" * 40},
    ]
    with pytest.raises(HubError, match="path leaves the folder"):
        resolve("org/tiny")


def test_hash_from_the_server_cannot_name_a_path(server: HubServer, repo: Repo) -> None:
    lfs = {"sha256": "../../evil", "size": 1, "pointerSize": 1}
    server.listing_override = [{"rfilename": "model.safetensors", "size": 1, "lfs": lfs}]
    with pytest.raises(HubError, match="no usable hash"):
        resolve("org/tiny")


def test_damaged_file_is_found_by_its_stamp_and_repaired(
    repo: Repo, server: HubServer, files: dict[str, bytes]
) -> None:
    found = resolve("org/tiny")
    with (found.path / BIG).open("r+b") as file:
        file.truncate(MIB)
    server.forget()
    assert (resolve("org/tiny").path / BIG).read_bytes() == files[BIG]
    assert set(server.sent) == {BIG}


def test_verify_finds_what_stamps_do_not_show(repo: Repo, server: HubServer, files: dict[str, bytes]) -> None:
    path = resolve("org/tiny").path / BIG
    stamp = path.stat()
    with path.open("r+b") as file:
        file.write(bytes([files[BIG][0] ^ 1]))
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    resolve("org/tiny")
    assert path.read_bytes() != files[BIG]  # believed
    resolve("org/tiny", verify=True)
    assert path.read_bytes() == files[BIG]


def test_offline_uses_the_recorded_copy(repo: Repo, server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    found = resolve("org/tiny")
    server.forget()
    assert resolve("org/tiny", offline=True) == found
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert resolve("org/tiny") == found
    assert server.requests == []


def test_offline_says_what_is_missing_and_how_to_bring_it(repo: Repo, server: HubServer) -> None:
    with pytest.raises(HubError, match=r"no copy of org/tiny .*offline.*deepseek pull org/tiny"):
        resolve("org/tiny", offline=True)
    found = resolve("org/tiny")
    (found.path / BIG).resolve().unlink()
    with pytest.raises(HubError, match=rf"lacks {BIG} of org/tiny .*deepseek pull org/tiny"):
        resolve("org/tiny", offline=True)


def test_without_a_network_the_copy_serves_and_its_lack_is_said(
    repo: Repo, server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    found = resolve("org/tiny")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    assert resolve("org/tiny") == found
    with pytest.raises(HubError, match=r"no copy of org/other .*connection to http://127.0.0.1:9 failed"):
        resolve("org/other")


def test_interrupted_update_leaves_the_older_copy_for_offline_use(
    repo: Repo, server: HubServer, files: dict[str, bytes]
) -> None:
    old = resolve("org/tiny")
    newer = "c" * 40
    repo.commits[newer] = {**files, BIG: os.urandom(3 * MIB), "config.json": b'{"model_type": "qwen2"}'}
    repo.refs["main"] = newer
    server.faults.cut_after[BIG] = [MIB] + [0] * 10
    with pytest.raises(HubError):
        resolve("org/tiny")
    assert resolve("org/tiny", offline=True) == old
    assert (old.path / BIG).read_bytes() == files[BIG]
    server.faults.cut_after.clear()
    assert resolve("org/tiny").revision == newer


def test_copy_that_another_tool_left_is_proven_and_used(repo: Repo, server: HubServer, cache: Path) -> None:
    resolve("org/tiny")
    hub = next((cache.parent / "hf" / "hub").glob("models--*"))
    (hub / "refs").mkdir(exist_ok=True)
    (hub / "refs" / "main").write_text("a" * 40)
    shutil.rmtree(cache)
    assert names_in(resolve("org/tiny", offline=True).path) == WANTED
    shutil.rmtree(cache)
    (hub / "snapshots" / ("a" * 40) / BIG).unlink()
    with pytest.raises(HubError, match=rf"lacks {BIG}"):
        resolve("org/tiny", offline=True)


def test_full_disk_is_said_and_the_next_run_goes_on(
    repo: Repo, server: HubServer, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    count = transfer.Part._count

    def full(part: transfer.Part, block: bytes) -> None:
        if part.file.name == BIG and part.have >= 2 * MIB:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        count(part, block)

    with monkeypatch.context() as patch:
        patch.setattr(transfer.Part, "_count", full)
        with pytest.raises(HubError, match=r"disk that holds .* is full: free some space"):
            resolve("org/tiny")
    server.forget()
    assert (resolve("org/tiny").path / BIG).read_bytes() == files[BIG]
    assert server.sent[BIG] <= len(files[BIG]) - 2 * MIB


def test_download_that_cannot_fit_is_not_begun(repo: Repo, server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage:
        free = MIB

    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage)
    with pytest.raises(HubError, match=r"needs 5\.\d MB more and its disk has 1\.0 MB free"):
        resolve("org/tiny")
    assert not server.sent


def test_refusals_name_the_mend(repo: Repo, server: HubServer) -> None:
    with pytest.raises(HubError, match="the hub has no repository org/absent"):
        resolve("org/absent")
    with pytest.raises(HubError, match="org/tiny has no revision 'absent'"):
        resolve("org/tiny", revision="absent")
    repo.gated = True
    with pytest.raises(HubError, match="org/tiny is gated: accept its terms"):
        resolve("org/tiny")


def test_pickle_alone_is_refused(server: HubServer) -> None:
    server.repos["org/old"] = Repo.of({"config.json": b"{}", "pytorch_model.bin": b"pickle"})
    with pytest.raises(HubError, match=r"only as pickle files \(pytorch_model.bin\).*refs/pr/NUMBER"):
        resolve("org/old")


def test_variant_picks_one_gguf(server: HubServer) -> None:
    server.repos["org/quants"] = Repo.of(
        {
            "m-Q4_K_M.gguf": b"four",
            "m-Q4_K_S.gguf": b"s",
            "m-Q8_0.gguf": b"eight!",
            "big/m-BF16-00001-of-00002.gguf": b"1",
            "big/m-BF16-00002-of-00002.gguf": b"2",
        }
    )
    with pytest.raises(HubError, match=r"several variants; name one, as in org/quants:.*Q4_K_M \(4 bytes\)"):
        resolve("org/quants")
    assert resolve("org/quants:q4_k_m").path.read_bytes() == b"four"
    assert resolve("org/quants:Q8_0").path.name == "m-Q8_0.gguf"
    split = resolve("org/quants:BF16").path
    assert split.name == "m-BF16-00001-of-00002.gguf"
    assert split.with_name("m-BF16-00002-of-00002.gguf").read_bytes() == b"2"
    with pytest.raises(HubError, match=r"no variant 'Q4'; it offers: .*Q4_K_S"):
        resolve("org/quants:Q4")
    server.forget()
    assert resolve("org/quants:Q8_0", offline=True).path.read_bytes() == b"eight!"


def test_a_projector_beside_a_model_is_no_variant(server: HubServer) -> None:
    names = ("tiny-Q4_K_M.gguf", "mmproj-tiny-f16.gguf", "imatrix.gguf", "tiny.mmproj-Q8_0.gguf")
    server.repos["org/sees"] = Repo.of({name: name.encode() for name in names})
    assert resolve("org/sees").path.name == names[0]


def test_config_alone_brings_no_weights_and_leaves_the_whole_to_be_fetched(
    repo: Repo, server: HubServer, files: dict[str, bytes]
) -> None:
    assert resolve_config("org/tiny").read_bytes() == files["config.json"]
    assert set(server.sent) == {"config.json"}
    assert resolve_config("org/tiny", offline=True).name == "config.json"
    with pytest.raises(HubError, match=r"no copy of org/tiny|lacks"):
        resolve("org/tiny", offline=True)
    assert names_in(resolve("org/tiny").path) == WANTED


def test_config_of_a_newer_commit_does_not_hide_the_older_whole(
    repo: Repo, server: HubServer, files: dict[str, bytes]
) -> None:
    whole = resolve("org/tiny")
    newer = "c" * 40
    repo.commits[newer], repo.refs["main"] = {**files, "config.json": b"{}"}, newer
    assert resolve_config("org/tiny").read_bytes() == b"{}"
    assert resolve("org/tiny", offline=True) == whole


def test_catalog_name_leads_to_its_repository(server: HubServer) -> None:
    server.repos["deepseek-ai/deepseek-llm-7b-chat"] = Repo.of({"config.json": b"{}", "model.safetensors": b"w"})
    found = resolve("deepseek/chat-7b")
    assert found.name == "deepseek/chat-7b"
    assert names_in(found.path) == {"config.json", "model.safetensors"}
