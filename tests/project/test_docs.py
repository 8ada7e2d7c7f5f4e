"""Every command, program and file format on the documentation's pages is checked.

The tests here do not run the commands. A command of chirpwatch or of a module must
parse with its real options and types, a training's keys with the real configuration.
Files, targets, extras and services that other commands name must exist. A command in a
block must be complete; a command that a text only names may lack arguments.

``test_docs_run.py`` runs ``docs/first-hour.md`` and ``docs/how-to/query.md`` line by
line, the program of ``docs/explanation/simulation.md``, and the notebook; no other page
uses curl. Commands that run for minutes, or need a cluster, a GPU, Docker or a
download, are only parsed. The programs of ``data.md`` and ``clients.md`` are compiled,
and their imports from chirpwatch must exist.
"""

import ast
import importlib
import json
import re
import subprocess
import tomllib
from pathlib import Path

import click
import pytest
import yaml

from chirpwatch.api.contract.requests import Veto
from chirpwatch.commands.cli import cli, main
from tests.project.pages import FENCE, PAGES, ROOT, Command, blocks, commands

RUN_PAGES = {"docs/first-hour.md", "docs/how-to/query.md"}
OTHERS = {"curl", "sed", "tr", "unzip", ".", "pre-commit"}
"""Programs whose options are not checked; curl commands are run instead."""
LANGUAGES = {"sh", "python", "text", "yaml", "json"}
GENERATED = ("runs/", "build/", "dist/")
"""Paths in the checkout that commands create."""
APART = {"hermes"}
"""Modules that tests run in separate environments."""


@pytest.fixture(autouse=True)
def _anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let click parse paths of files that do not exist."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(click.Path, "convert", lambda self, value, param, ctx: value)


def test_every_block_names_its_language() -> None:
    assert {block.language for block in blocks()} == LANGUAGES
    for path in PAGES:
        # An unclosed fence would hide the rest of the page.
        assert "```" not in FENCE.sub("", path.read_text()), path


def test_lines_of_prose_are_short() -> None:
    for path in PAGES:
        for line in FENCE.sub("", path.read_text()).splitlines():
            if not line.lstrip().startswith(("|", "![")):
                assert len(line) <= 100, f"{path}: {line}"


def test_files_that_pages_name_exist() -> None:
    folders = "|".join(sorted(path.name for path in ROOT.iterdir() if path.is_dir()))
    for path in PAGES:
        text = FENCE.sub("", path.read_text())
        for name in re.findall(rf"`((?:{folders})/[\w./-]*)`", text):
            if not name.startswith(GENERATED) and "NAME" not in name:
                assert (ROOT / name).exists(), f"{path}: {name}"


def test_python_names_that_pages_give_exist() -> None:
    for path in PAGES:
        for name in re.findall(
            r"`(chirpwatch(?:\.\w+)+)", FENCE.sub("", path.read_text())
        ):
            assert resolves(name), f"{path}: {name}"
    assert not resolves("chirpwatch.strain.write_background")


def resolves(name: str) -> bool:
    """Whether a dotted name is a module, or what a module has."""
    module, _, attribute = name.rpartition(".")
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        return hasattr(importlib.import_module(module), attribute)
    return True


def of_program(*names: str) -> list[Command]:
    """Commands of the given programs."""
    return [
        command
        for command in commands()
        if command.words[0].removeprefix(".venv/bin/") in names
    ]


def test_every_program_is_checked() -> None:
    known = {"chirpwatch", "make", "pip", "python", "pytest", "docker", *OTHERS}
    for command in commands():
        assert command.words[0].removeprefix(".venv/bin/") in known, command
    for command in of_program("curl"):
        assert command.page in RUN_PAGES, command


def test_commands_of_chirpwatch_parse() -> None:
    found = of_program("chirpwatch")
    assert len(found) > 80
    for command in found:
        parse(command, cli, command.words[1:])


def parse(command: Command, parser: click.Command, words: tuple[str, ...]) -> None:
    """Fail unless click accepts the words; incomplete ones if more may follow."""
    if isinstance(parser, click.Group) and words and not words[0].startswith("-"):
        below = parser.get_command(click.Context(parser), words[0])
        assert below is not None, f"{command}: there is no {words[0]}"
        return parse(command, below, words[1:])
    typed = [word for word in words if word not in {"…", "..."}]
    try:
        parser.make_context("documented", typed)
    except click.exceptions.Exit:
        pass  # --help, --version
    except click.exceptions.NoArgsIsHelpError:
        assert not command.whole, command
    except click.MissingParameter as error:
        assert not command.whole, f"{command}: {error.format_message()}"
    except click.UsageError as error:
        # A command that a text only names, such as `chirpwatch replay --strain`.
        named = not command.whole and "requires" in error.format_message()
        assert named, f"{command}: {error.format_message()}"
    return None


def trainings() -> list[tuple[str, ...]]:
    """Options of every training, by command."""
    return sorted(
        {
            command.words[3:]
            for command in of_program("chirpwatch")
            if command.whole and command.words[1:3] == ("train", "fit")
            # A resumed training has its configuration in its folder.
            if "--resume" not in command.words
        }
    )


@pytest.mark.parametrize("words", trainings(), ids=" ".join)
def test_keys_of_trainings_parse(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("mine.yaml").write_text("steps: 100\n")
    shown = [word for word in words if word != "--print_config"]
    with pytest.raises(SystemExit) as ended:
        main(["train", "fit", *shown, "--print_config"])
    assert ended.value.code == 0, capsys.readouterr().err
    assert "learning_rate" in capsys.readouterr().out


def test_a_wrong_command_does_not_pass() -> None:
    for words in (
        ("replay", "--no-such-option"),
        ("nothing",),
        ("background", "--livetime", "1 fortnight"),
        ("api", "--port", "http"),
    ):
        with pytest.raises(AssertionError):
            parse(Command("page", words, False), cli, words)
    with pytest.raises(AssertionError):
        parse(Command("page", ("export",), True), cli, ("export", "one"))
    with pytest.raises(SystemExit) as ended:
        main(["train", "fit", "--data.nothing", "1", "--print_config"])
    assert ended.value.code == 1


def test_modules_parse() -> None:
    found = [command for command in of_program("python") if command.words[1] == "-m"]
    assert len(found) > 10
    for command in found:
        module = importlib.import_module(command.words[2])
        parsers = {
            value
            for value in vars(module).values()
            if isinstance(value, click.Command)
            and value.callback.__module__ == module.__name__
        }
        if parsers:
            parse(command, parsers.pop(), command.words[3:])


def test_targets_extras_and_services_exist() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    for command in of_program("make"):
        targets = [word for word in command.words[1:] if "=" not in word]
        check = ["make", "--dry-run", "--directory", str(ROOT), *targets]
        done = subprocess.run(check, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}: {done.stderr}"
    for command in of_program("python"):
        if command.words[1].endswith(".py"):
            assert (ROOT / command.words[1]).is_file(), command
        else:
            assert command.words[1] in {"-m", "-c"}, command
    for command in of_program("pytest"):
        files = [word for word in command.words[1:] if word.startswith("tests/")]
        text = "".join((ROOT / file).read_text() for file in files)
        assert files, command
        if "-k" in command.words:
            wanted = command.words[command.words.index("-k") + 1]
            assert re.search(rf"^def test_\w*{wanted}", text, re.MULTILINE), command
    for command in of_program("pip"):
        if command.words[1] == "install":
            (extra,) = re.findall(r"\.\[(\w+)\]", command.words[-1])
            assert extra in extras["optional-dependencies"], command
    for command in of_program("docker"):
        assert command.words[1] == "compose", command
        assert {"up", "exec", "logs"} & set(command.words), command
        for name in re.findall(r"-f (\S+)", " ".join(command.words)):
            assert (ROOT / name).is_file(), command
        if "exec" in command.words:
            assert command.words[command.words.index("exec") + 1] in services, command


def test_python_programs_compile_and_their_imports_exist() -> None:
    for block in blocks("python"):
        for node in ast.walk(ast.parse(block.text, block.page)):
            if isinstance(node, ast.ImportFrom) and node.module:
                if node.module.split(".")[0] in APART:
                    continue
                module = importlib.import_module(node.module)
                for name in node.names:
                    assert hasattr(module, name.name), f"{block.page}: {name.name}"


def test_json_and_yaml_blocks_are_valid() -> None:
    (veto,) = blocks("json")
    assert Veto.model_validate(json.loads(veto.text)).ifos == ["L1"]
    for block in blocks("yaml"):
        assert set(yaml.safe_load(block.text)) == {"jobqueue"}, block.page
