"""The scan for secrets finds what is planted, and an audit that could not be made is none."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

import pytest

from scripts import audit, scan_secrets

# Put together here, or this file would be found itself.
_LETTERS = base64.b64encode(hashlib.sha512(b"planted").digest()).decode().replace("+", "a").replace("/", "b")


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("key.py", f'AWS = "AKIA{_LETTERS[:16].upper()}"'),
        ("key.pem", "-----BEGIN RSA " + "PRIVATE KEY-----"),
        ("ci.yml", f"token: ghp_{_LETTERS[:36]}"),
        ("pay.py", f'stripe.api{"_key"} = "sk_live_{_LETTERS[:24]}"'),
        ("hook.py", f'SIGNING = "whsec_{_LETTERS[:32]}"'),
        ("chat.md", f"set it to xoxb-{123456789012}-{123456789013}-{_LETTERS[:24]}"),
        (".env", f"DATABASE=postgresql://penstock:{_LETTERS[:12]}@db/ledger"),
        ("settings.py", "pass" + 'word = "correct-horse"'),
        ("deep.py", f'    KEYS = ("{hashlib.sha256(b"planted").hexdigest()}",)'),
    ],
)
def test_a_planted_secret_is_found(tmp_path: Path, name: str, line: str) -> None:
    """Whatever kind it is of, between lines that are none; told by where it stands and not by its value."""
    (tmp_path / name).write_text(f"# nothing\n\n{line}\n# nothing\n")
    (tmp_path / "clean.py").write_text("def nothing() -> None:\n    print('a long enough line to be looked at, 123')\n")
    found = scan_secrets.scan(tmp_path, ["clean.py", name])
    assert {one.path for one in found} == {name}
    assert "3" in {one.line for one in found}
    assert not any(_LETTERS[:12] in str(one) for one in found)


def test_what_may_be_found_is_named_with_a_reason() -> None:
    """Each hash once, each with a reason."""
    known = scan_secrets.known()
    assert known
    assert all(len(sha1) == 40 and why for sha1, why in known.items())


def test_an_audit_names_what_is_vulnerable_and_what_it_could_not_ask() -> None:
    """A package that the service does not know is not taken for a good one."""
    report = {
        "dependencies": [
            {"name": "good", "version": "1", "vulns": []},
            {"name": "bad", "version": "2", "vulns": [{"id": "PYSEC-1", "fix_versions": ["3"], "aliases": []}]},
            {"name": "strange", "skip_reason": "not found"},
        ]
    }
    assert audit.judge(report) == (["bad 2: PYSEC-1, mended in 3"], ["strange"])


def test_an_audit_that_got_no_answer_fails(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither service answers, or one knows not all: that is no success, and is said."""
    told = iter(["pypi is away", {"dependencies": [{"name": "strange", "skip_reason": "not found"}]}])
    monkeypatch.setattr(audit, "requirements", lambda folder: folder)
    monkeypatch.setattr(audit, "ask", lambda service, listed: next(told))
    assert audit.main() == 2
    assert "NOT AUDITED" in capsys.readouterr().err
