# SPDX-License-Identifier: GPL-2.0
"""Manual pages and bash completion of the installed commands, from the options of their verbs.

What is written by hand is in package/<name>.<section>.  A line there that says only @OPTIONS@
becomes the options of the command, and @DATE@ and @VERSION@ what they say, so that an option that a
verb gets is told of everywhere.
"""

import re

from lab import defect
from lab.options import DEFECT, Option
from lab.pack.command import Command
from lab.paths import HOME

PAGES = HOME / "package"
_COMPLETION = """\
# bash completion for {name}

{function}()
{{
	local cur=${{COMP_WORDS[COMP_CWORD]}} prev=${{COMP_WORDS[COMP_CWORD - 1]}}

	# Bash takes --name=value for three words.
	if [[ $cur == "=" ]]; then
		cur=
	elif [[ $prev == "=" && $COMP_CWORD -gt 2 ]]; then
		prev=${{COMP_WORDS[COMP_CWORD - 2]}}
	fi
	case $prev in
{cases}	esac
	if [[ $cur == -* ]]; then
		mapfile -t COMPREPLY < <(compgen -W "{options}" -- "$cur")
	{bare}fi
}}
complete -o filenames -F {function} {name}
"""


def escape(text: str) -> str:
    """The text, so that it stays what it is in a manual page."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("~", "\\(ti")
    return re.sub(r"(?m)^([.'])", r"\\&\1", text)


def page(text: str, command: Command | None, version: str, date: str) -> str:
    """A manual page from what was written by hand."""
    text = text.replace("@VERSION@", version).replace("@DATE@", date)
    if command is None:
        return text
    made = "".join(_told(option) for option in command.does().takes)
    return text.replace("@OPTIONS@\n", made)


def _told(option: Option) -> str:
    value = f"[=\\fI{escape(option.metavar)}\\fR]" if option.switch \
        else f" \\fI{escape(option.metavar)}\\fR"
    return (f".TP\n\\fB\\-\\-{escape(option.name)}\\fR{value}, "
            f"\\fB{option.variable}=\\fI{escape(option.metavar)}\\fR\n{escape(option.help)}\n")


def _values(option: Option) -> str:
    """The command of bash that says what can come next, for an option's value."""
    if names := re.fullmatch(r"\{(.*)\}", option.metavar):
        return f'compgen -W "{" ".join(names[1].split(","))}" -- "$cur"'
    if option.variable == DEFECT.variable:
        return f'compgen -W "{" ".join(defect.names())}" -- "$cur"'
    if option.metavar == "DIR":
        return 'compgen -d -- "$cur"'
    if option.metavar in ("FILE", "PATH"):
        return 'compgen -f -- "$cur"'
    return ""


def completion(command: Command) -> str:
    """The completion of a command."""
    takes = command.does().takes
    cases = ""
    for option in takes:
        # A switch may come without a value: then the next word is not about it.
        values = "" if option.switch else _values(option)
        if not option.switch:
            then = f"\t\tmapfile -t COMPREPLY < <({values})\n" if values else ""
            cases += f"\t--{option.name})\n{then}\t\treturn ;;\n"
    bare = next((one for one in takes if one.name == command.bare), None)
    # What is a file alone is another option's.
    alone = 'compgen -f -- "$cur"' if command.file else _values(bare) if bare else ""
    return _COMPLETION.format(
        name=command.name, function="_" + command.name.replace("-", "_"), cases=cases,
        options=" ".join([*(f"--{one.name}" for one in takes), "--help", "--version"]),
        bare=f"else\n\t\tmapfile -t COMPREPLY < <({alone})\n\t" if bare else "")
