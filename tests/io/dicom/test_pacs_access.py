from pathlib import Path

import pytest

from vertebral.core.errors import ConfigError
from vertebral.io.dicom.pacs_access import Access, is_address, parse_address, read_access

UIDS = "studies/1.2.3/series/4.5.6"


@pytest.mark.parametrize(
    ("text", "base", "private"),
    [
        (f"dicomwebs://pacs.example/{UIDS}", "https://pacs.example", True),
        (f"dicomwebs://pacs.example:8443/dicom-web/{UIDS}/", "https://pacs.example:8443/dicom-web", True),
        (f"dicomweb://pacs.example/a/b/{UIDS}", "http://pacs.example/a/b", False),
        (f"dicomweb://localhost:8042/dicom-web/{UIDS}", "http://localhost:8042/dicom-web", True),
        (f"dicomweb://127.0.0.1/{UIDS}", "http://127.0.0.1", True),
        (f"dicomweb://[::1]:80/{UIDS}", "http://[::1]:80", True),
    ],
)
def test_addresses(text, base, private):
    address = parse_address(text)
    assert (address.base_url, address.study_uid, address.series_uid) == (base, "1.2.3", "4.5.6")
    assert address.is_private is private


@pytest.mark.parametrize(
    "text",
    [
        "dicomweb://host/studies/1.2/series/",
        "dicomweb://host/studies/1.2",
        "dicomweb:///studies/1.2/series/3",
        "dicomweb://host/studies/1.2/series/abc",
        "dicomweb://host:port/studies/1.2/series/3",
        "dicomweb://host/studies/1.2/series/3?x=1",
        "https://host/studies/1.2/series/3",
    ],
)
def test_what_is_no_address(text):
    with pytest.raises(ConfigError, match="not the address of a series; give dicomwebs://host"):
        parse_address(text)


def test_a_password_in_the_address_is_refused_and_not_repeated():
    with pytest.raises(ConfigError, match="VERTEBRAL_PACS_PASSWORD") as caught:
        parse_address(f"dicomwebs://bob:secret@host/{UIDS}")
    assert "secret" not in str(caught.value)


def test_paths_are_no_addresses():
    assert is_address("dicomweb://x")
    assert not is_address("/data/dicomweb")
    assert not is_address("C:\\scan")
    assert not is_address("http://x")


def credentials(tmp_path: Path, text: str, mode: int = 0o600) -> Path:
    file = tmp_path / "credentials"
    file.write_text(text)
    file.chmod(mode)
    return file


def test_credentials_from_the_environment():
    environ = {"VERTEBRAL_PACS_USER": "bob", "VERTEBRAL_PACS_PASSWORD": "secret"}
    assert read_access(environ=environ) == Access("bob", "secret")
    assert "secret" not in repr(read_access(environ=environ))
    assert read_access(environ={"VERTEBRAL_PACS_TOKEN": "t"}) == Access(token="t")
    assert read_access(environ={}) == Access()


def test_a_file_comes_before_the_environment(tmp_path):
    file = credentials(tmp_path, "# PACS\nuser = bob\npassword = a = b\n")
    environ = {"VERTEBRAL_PACS_TOKEN": "t", "VERTEBRAL_PACS_CREDENTIALS": str(file)}
    assert read_access(environ=environ) == Access("bob", "a = b")
    assert read_access(credentials(tmp_path, "token=xyz"), environ={}) == Access(token="xyz")


@pytest.mark.parametrize(
    ("text", "mode", "words"),
    [
        ("user = bob\npassword = secret", 0o640, "other users can read these credentials: run chmod 600"),
        ("user = bob\nsecret", 0o600, "line 2 must be user"),
        ("user = bob", 0o600, "a PACS user needs a password"),
        ("user = bob\npassword = secret\ntoken = secret", 0o600, "both a token and a user"),
    ],
)
def test_bad_credentials(tmp_path, text, mode, words):
    with pytest.raises(ConfigError, match=words) as caught:
        read_access(credentials(tmp_path, text, mode), environ={})
    assert "secret" not in str(caught.value)


def test_missing_files(tmp_path):
    with pytest.raises(ConfigError, match="cannot read the credentials"):
        read_access(tmp_path / "none", environ={})
    with pytest.raises(ConfigError, match="no such CA bundle"):
        read_access(ca_bundle=tmp_path / "none", environ={})
