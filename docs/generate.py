"""Makes the site's pages that come from elsewhere: a hook of MkDocs.

The home page is README.md. The reference is written from what it describes: click's
commands, the OpenAPI description of the results service, the modules of the packages
that users import, and the configurations of a training.
"""

import inspect
import logging
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

import chirpwatch.train.data
from chirpwatch.api.app import create_app
from chirpwatch.commands.cli import cli

ROOT = Path(__file__).parent.parent
FORGE_PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
"""Pages that lie at the root, for the forge, by their paths on the site."""
PACKAGES = ("chirpwatch", "chirpwatch.api.contract")
"""Packages whose modules have a page each."""
MODULES = ("chirpwatch.api.client", "chirpwatch.train.data")
"""Further modules that have a page; of ``chirpwatch.train.data``, what it exports."""
BANK = "../../train/banks/shipped.png"
"""A figure beside what it shows, as the page on the network links it."""
REMOTE = re.compile(
    r"<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)=\"?(https?://[^\s\">]+)"
)

log = logging.getLogger("mkdocs.hooks.generate")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the generated pages of a folder in place of its name in the navigation."""
    sections = {
        "reference/commands": [
            {"Overview": "reference/commands/index.md"},
            *({name: f"reference/commands/{name}.md"} for name in _names(cli)),
        ],
        "reference/python": [
            {module.removeprefix("chirpwatch."): f"reference/python/{module}.md"}
            for module in _modules()
        ],
    }
    config.nav = _filled(config.nav, sections)
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    for path, content in _pages():
        files.append(File.generated(config, path, content=content))
    figure = (ROOT / "docs" / "explanation" / BANK).resolve()
    files.append(File.generated(config, "images/bank.png", abs_src_path=str(figure)))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Lead to the copy of a figure that lies outside of the site."""
    return markdown.replace(BANK, "../images/bank.png")


def on_post_page(output: str, page: Page, **_: Any) -> str:
    """Warn of whatever a page would load from the network."""
    for address in REMOTE.findall(output):
        log.warning("%s would load %s", page.file.src_uri, address)
    return output


def _filled(nav: Any, sections: dict[str, list[dict[str, str]]]) -> Any:
    if isinstance(nav, list):
        return [_filled(item, sections) for item in nav]
    if isinstance(nav, dict):
        return {title: _filled(item, sections) for title, item in nav.items()}
    return sections.get(nav, nav)


def _pages() -> Iterator[tuple[str, str]]:
    for source, path in FORGE_PAGES.items():
        yield path, _from_root((ROOT / source).read_text())
    yield "reference/commands/index.md", _command_index()
    for name in _names(cli):
        yield f"reference/commands/{name}.md", "".join(_command(["chirpwatch", name]))
    yield "reference/http.md", "".join(_http())
    for module in _modules():
        exported = ""
        if module == chirpwatch.train.data.__name__:
            exported = f"    options:\n      members: {chirpwatch.train.data.__all__}\n"
        yield (
            f"reference/python/{module}.md",
            f"# {module}\n\n::: {module}\n{exported}",
        )
    yield "reference/configurations.md", "".join(_configurations())


def _from_root(text: str) -> str:
    """Links of a page at the repository's root, as of one in docs/."""
    text = text.replace("](docs/", "](")
    for source, path in FORGE_PAGES.items():
        text = text.replace(f"]({source}", f"]({path}")
    return text


# Commands


def _names(command: click.Command) -> list[str]:
    if not isinstance(command, click.Group):
        return []
    return command.list_commands(click.Context(command))


def _find(path: list[str]) -> tuple[click.Command, click.Context]:
    command: click.Command = cli
    context = click.Context(cli, info_name=path[0])
    for name in path[1:]:
        assert isinstance(command, click.Group)
        found = command.get_command(context, name)
        assert found is not None
        command, context = found, click.Context(found, info_name=name, parent=context)
    return command, context


def _command_index() -> str:
    lines = ["# Commands\n\n", f"{_prose(cli.help)}\n\n| Command | |\n|---|---|\n"]
    for name in _names(cli):
        command, _ = _find(["chirpwatch", name])
        short = command.get_short_help_str(limit=200)
        lines.append(f"| [`chirpwatch {name}`]({name}.md) | {_cell(short)} |\n")
    lines.append(
        "\nEvery option may also be given in the environment: `--port` of "
        "`chirpwatch api` is `CHIRPWATCH_API_PORT`.\n"
    )
    return "".join(lines)


def _command(path: list[str]) -> Iterator[str]:
    """Describe a command, and those below it."""
    command, context = _find(path)
    yield f"{'#' * (len(path) - 1)} {' '.join(path)}\n\n"
    yield f"{_prose(command.help)}\n\n"
    usage = " ".join([*path, *command.collect_usage_pieces(context)])
    yield f"```text\n{usage}\n```\n\n"
    records = [
        record
        for option in command.get_params(context)
        if isinstance(option, click.Option) and "--help" not in option.opts
        if (record := option.get_help_record(context)) is not None
    ]
    if records:
        yield "| Option | |\n|---|---|\n"
        for names, text in records:
            yield f"| `{names}` | {_cell(text)} |\n"
        yield "\n"
    for name in _names(command):
        yield from _command([*path, name])


def _prose(text: str | None) -> str:
    """Help as Markdown, with options in code font."""
    cleaned = inspect.cleandoc(text or "").replace("*", r"\*")
    return re.sub(r"(?<![\w`-])(--[a-z]\w*(?:[.-]\w+)*)", r"`\1`", cleaned)


def _cell(text: str) -> str:
    """Help as a cell of a table."""
    text = _prose(" ".join(text.split()))
    return re.sub(r"([\[\]|])", r"\\\1", text.replace("<", "&lt;"))


# HTTP


def _http() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        described = create_app(str(Path(folder) / "empty.db")).openapi()
    yield "# HTTP addresses\n\n"
    yield (
        "Written from the service's own description, which it answers at "
        "`/openapi.json`. [The results service](api.md) says what the numbers mean. "
        "An answer's fields are those of the Python class that it links to.\n\n"
    )
    yield f"{described['info']['description'].strip()}\n\n"
    for path, operations in described["paths"].items():
        for method, operation in operations.items():
            yield f"## {method.upper()} {path}\n\n"
            text = operation.get("description") or operation.get("summary", "")
            yield f"{text.strip()}\n\n"
            yield from _bodies(operation)
            yield from _parameters(operation.get("parameters", []))


def _bodies(operation: dict[str, Any]) -> Iterator[str]:
    if "requestBody" in operation:
        content = operation["requestBody"]["content"]
        yield f"Body: {_contents(content)}\n\n"
    for status, answer in operation["responses"].items():
        if status.startswith("2"):
            yield f"Answer {status}: {_contents(answer.get('content', {}))}\n\n"


def _contents(content: dict[str, Any]) -> str:
    return (
        ", ".join(
            f"{_type(described.get('schema', {}))} (`{media}`)"
            for media, described in content.items()
        )
        or "empty"
    )


def _parameters(parameters: list[dict[str, Any]]) -> Iterator[str]:
    if not parameters:
        return
    yield "| Parameter | In | Type | |\n|---|---|---|---|\n"
    for parameter in parameters:
        schema = parameter["schema"]
        text = " ".join(parameter.get("description", "").split())
        if "default" in schema:
            text = f"{text} [default: {schema['default']}]".strip()
        if parameter.get("required") and parameter["in"] == "query":
            text = f"{text} [required]".strip()
        yield (
            f"| `{parameter['name']}` | {parameter['in']} | {_type(schema)} "
            f"| {_cell(text)} |\n"
        )
    yield "\n"


def _type(schema: dict[str, Any]) -> str:
    """A schema's type in words, with a link where it is a class of the contract."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        for module in _contract():
            if re.search(rf"^class {name}\b", module.read_text(), re.MULTILINE):
                return f"[`{name}`][chirpwatch.api.contract.{module.stem}.{name}]"
        return f"`{name}`"
    if "anyOf" in schema:
        return " or ".join(_type(one) for one in schema["anyOf"])
    if schema.get("type") == "array":
        return f"list of {_type(schema['items'])}"
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    return str(schema.get("type", "any"))


def _contract() -> list[Path]:
    return sorted((ROOT / "api" / "contract").glob("*.py"))


# Python


def _modules() -> list[str]:
    """Modules that have a page, by name, without those that are a command's."""
    found = {
        f"{package}.{path.stem}"
        for package in PACKAGES
        for path in (ROOT / package.replace(".", "/")).glob("*.py")
        if not path.stem.startswith("_") and not path.stem.endswith("cli")
    }
    return sorted(found.union(MODULES))


# Configurations


def _configurations() -> Iterator[str]:
    yield "# Configurations of a training\n\n"
    yield (
        "`chirpwatch train fit --config NAME` takes one of these. "
        "`--print_config` prints every key with its value, those that a file leaves "
        "at their default included.\n\n"
    )
    for path in sorted((ROOT / "train" / "configs").glob("*.yaml")):
        yield f"## {path.stem}\n\n```yaml\n{path.read_text()}```\n\n"
