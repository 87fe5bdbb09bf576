"""A student's folder as an engine sees it: its files by links, no code, and the prompt's form that it was taught."""

from __future__ import annotations

from pathlib import Path

from limbeck.serving.language.model import LanguageModel

NAME = "student"
"""Of the folder that engines are given: nothing in it can be read as a revision, a file or an option."""
_TEMPLATE = "chat_template.jinja"


def make_view(model: LanguageModel, place: Path) -> Path:
    """A folder with links to a student's files.

    Python files are left out, so that none can be run. A student that was taught with plain prompts gets a template
    that spells them; what the tokenizer had is not what the student knows.

    Args:
        model: the student.
        place: a folder of our own.
    """
    folder = place / NAME
    folder.mkdir()
    for file in sorted(model.folder.resolve().iterdir()):
        if file.is_file() and file.suffix != ".py" and (model.codec.chat or file.name != _TEMPLATE):
            (folder / file.name).symlink_to(file)
    if not model.codec.chat:
        (folder / _TEMPLATE).write_text(plain_template(model), encoding="utf-8")
    return folder


def plain_template(model: LanguageModel) -> str:
    """A chat template for prompts in the plain form: the turns' texts by lines, then the separator."""
    opening = "{{ bos_token }}" if model.codec.opening else ""
    separator = model.codec.task.separator.translate(_ESCAPES)
    turns = "{% for m in messages %}{{ m['content'] }}{% if not loop.last %}{{ '\\n' }}{% endif %}{% endfor %}"
    return f"{opening}{turns}{{{{ '{separator}' }}}}"


_ESCAPES = {ord(sign): f"\\{name}" for sign, name in {"\\": "\\", "'": "'", "\n": "n", "\t": "t", "\r": "r"}.items()}
"""How a string of a template writes them; an end of line as it is might be trimmed."""
