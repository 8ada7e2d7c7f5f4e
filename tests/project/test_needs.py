"""In CI, no test is skipped because something is missing."""

import ast
from pathlib import Path

import pytest

from tests import needs

HERE = Path(needs.__file__).parent


def test_a_missing_requirement_skips_a_test_and_fails_it_in_ci(monkeypatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match=r"expected 1 of none\.hdf in /"):
        needs.shared_data("none.hdf")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match=r"CI must .*expected 1 of none"):
        needs.shared_data("none.hdf")
    with pytest.raises(pytest.fail.Exception, match="no such-a-program on the PATH"):
        needs.program("such-a-program", "a-package")


def test_no_other_test_skips() -> None:
    ways = {"skip", "skipif", "importorskip", "skipTest", "SkipTest", "xfail"}
    for path in HERE.rglob("*.py"):
        if path != Path(needs.__file__):
            for node in ast.walk(ast.parse(path.read_text())):
                name = {ast.Attribute: "attr", ast.alias: "name"}.get(type(node), "")
                if getattr(node, name, None) in ways:
                    # The test above checks the exception that pytest's skip() raises.
                    assert path == Path(__file__), f"{path}, line {node.lineno}"
