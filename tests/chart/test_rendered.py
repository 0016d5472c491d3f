"""What the chart renders, judged by mlwarden itself."""

import pytest

from mlwarden.cli import check
from mlwarden.embedded import build
from mlwarden.embedded.installed import chart


def test_its_own_pods_pass_the_production_pack(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    build.binary("helm")
    monkeypatch.setenv("PATH", build.tools_path(), prepend=":")
    code = check.main([str(chart()), "--profile", "production"])
    said = capsys.readouterr().out
    assert code == 0, said
    assert " 0 denied" in said
    assert "Deployment default/mlwarden-webhook" in said  # a note that its image was not scanned yet: it was looked at
