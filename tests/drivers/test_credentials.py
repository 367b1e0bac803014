"""Where credentials come from, and that nothing shows them."""

from __future__ import annotations

import traceback
from pathlib import Path

import pytest
from emulators import write_credentials

from drivers.contract import Unavailable
from drivers.credentials import Credentials, read_credentials

KNOWN = ("user", "password")


def refusal(source: str | None, environment: dict[str, str] | None = None) -> Unavailable:
    with pytest.raises(Unavailable) as caught:
        read_credentials("ipmi", source, KNOWN, environment).need("password")
    shown = "".join(traceback.format_exception(caught.value))
    assert "canary" not in shown + repr(caught.value) + caught.value.fix
    return caught.value


def test_from_a_file_of_its_owner(tmp_path: Path) -> None:
    path = write_credentials(tmp_path / "secrets.toml", user="monitor", password="canary")
    found = read_credentials("ipmi", str(path), KNOWN)
    assert (found.need("user"), found.need("password"), found.get("kg")) == ("monitor", "canary", "")
    assert "canary" not in repr(found) + str(found) and "password" in repr(found)
    for mode in (0o640, 0o604, 0o660, 0o644):
        path.chmod(mode)
        told = refusal(str(path))
        assert "others may read" in told.reason and told.fix.startswith(f"chmod 600 {path}")


def test_from_the_environment() -> None:
    found = read_credentials("ipmi", "env:RACK1", KNOWN, {"RACK1_USER": "monitor", "RACK1_PASSWORD": "canary"})
    assert found.need("password") == "canary" and "canary" not in repr(found)
    assert "RACK1_PASSWORD" in refusal("env:RACK1", {"RACK1_USER": "canary"}).fix


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("password = canary", "no TOML file"),
        ('password = "canary', "no TOML file"),
        ("password = 12345", "no text"),
        ('passwort = "canary"', "'passwort'"),
        ('user = "canary"', "does not give 'password'"),
        ("", "does not give 'password'"),
        ('password = "canary"\npassword = "canary"', "no TOML file"),
        ("[password]\ncanary = 1", "no text"),
    ],
)
def test_files_with_mistakes(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "secrets.toml"
    path.write_text(text)
    path.chmod(0o600)
    assert told in refusal(str(path)).reason


def test_no_file_and_no_setting(tmp_path: Path) -> None:
    assert "No such file" in refusal(str(tmp_path / "none.toml")).reason
    assert "ipmi.credentials=FILE" in refusal(None).fix
    path = tmp_path / "noise.toml"
    path.write_bytes(b"\xff\xfe")
    path.chmod(0o600)
    assert "no TOML file" in refusal(str(path)).reason


def test_a_missing_secret_is_named_and_no_other_shown() -> None:
    with pytest.raises(Unavailable) as caught:
        Credentials("secrets.toml", {"password": "canary"}).need("user")
    assert "user" in caught.value.reason and "canary" not in str(caught.value) + caught.value.fix
